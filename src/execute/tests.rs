use super::*;

#[test]
fn values_of_set_are_not_kept() {
    let args = [
        "hello",
        "broadcast",
        "--set",
        "a=b=c",
        "--set=d=e",
        "--reason",
        "f=g",
    ]
    .map(String::from);
    assert_eq!(
        secretless(args.into_iter()),
        [
            "hello",
            "broadcast",
            "--set",
            "a=..",
            "--set=d=..",
            "--reason",
            "f=g"
        ]
    );
}
