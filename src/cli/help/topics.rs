//! The pages of the manual, as they stand in `docs`.

/// One page.
#[derive(Debug)]
pub(super) struct Topic {
    /// Its name on the command line, and of its file.
    pub(super) name: &'static str,
    /// The page in Markdown.
    pub(super) text: &'static str,
}

impl Topic {
    /// Returns the first heading of the page, without the name of the topic.
    pub(super) fn title(&self) -> &'static str {
        let heading = self.text.lines().next().unwrap_or_default();
        let title = heading.trim_start_matches("# ");
        title.split_once(": ").map_or(title, |(_, rest)| rest)
    }
}

/// Makes a topic of each page of `docs`.
macro_rules! topics {
    ($($name:literal),+ $(,)?) => {
        [$(Topic {
            name: $name,
            text: include_str!(concat!("../../../docs/", $name, ".md")),
        }),+]
    };
}

/// Every page, in the order in which a newcomer reads them.
pub(super) const TOPICS: &[Topic] = &topics![
    "tutorial",
    "install",
    "commands",
    "fleet-file",
    "matching",
    "validation",
    "proof",
    "rollout",
    "watch",
    "recovery",
    "daemons",
    "stores",
    "hosts",
    "json",
    "security",
    "state",
    "troubleshooting",
    "faq",
    "comparison",
    "architecture",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says so by failing")]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn every_page_of_docs_is_a_topic() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let pages: BTreeSet<String> = std::fs::read_dir(docs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let topics = TOPICS.iter().map(|topic| topic.name.to_owned()).collect();
        assert_eq!(pages, topics);
    }

    #[test]
    fn every_page_begins_with_its_title() {
        for topic in TOPICS {
            assert!(topic.text.starts_with("# "), "{}", topic.name);
        }
    }
}
