//! Apache with the event module. It takes SIGUSR1; SIGHUP would cut requests off.

use nix::sys::signal::Signal;

use super::{
    Daemon, acts, command, folder, free_port, need,
    web::{Sort, Web, body},
};
use crate::support::{until, write};

static APACHE2: Sort = Sort {
    kind: "apache2",
    matching: |dir, _| {
        format!(
            "{{ exe = \"apache2\", args = [\"{}/apache2.conf\"] }}",
            dir.display()
        )
    },
    tells: ("error.log", "SIGUSR1 received"),
    struck: None,
    workers: 1,
    file: "apache2.conf",
    text: |dir, port, word| {
        let dir = dir.display();
        let user = if nix::unistd::geteuid().is_root() {
            "User www-data\nGroup www-data\n"
        } else {
            ""
        };
        let modules: String = ["mpm_event", "authz_core", "alias"]
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .concat();
        format!(
            "ServerRoot {dir}\nServerName localhost\nDefaultRuntimeDir {dir}\nPidFile {dir}/pid\nMutex file:{dir} default\n\
             ErrorLog {dir}/error.log\nListen 127.0.0.1:{port}\n{modules}{user}\
             StartServers 1\nServerLimit 4\nThreadsPerChild 16\nMinSpareThreads 1\nMaxSpareThreads 64\nMaxRequestWorkers 64\n\
             AliasMatch ^/$ {dir}/words/{word}\nAlias /slow {dir}/words/slow\n"
        )
    },
    ask: body,
    // It sends until the buffers of the connection are full.
    open: "GET /slow HTTP/1.0\r\n\r\n",
};

/// The same with mod_ssl, as Debian's `a2enmod ssl` sets it up, and a second port.
static WITH_SSL: Sort = Sort {
    kind: "apache2",
    matching: |dir, port| (APACHE2.matching)(dir, port),
    tells: ("error.log", "SIGUSR1 received"),
    struck: None,
    workers: 1,
    file: "apache2.conf",
    text: |dir, port, word| {
        let text = (APACHE2.text)(dir, port, word);
        let port = std::fs::read_to_string(dir.join("tls-port")).unwrap();
        let dir = dir.display();
        let modules: String = ["socache_shmcb", "ssl"]
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .concat();
        format!(
            "{modules}{text}Listen 127.0.0.1:{port}\nSSLRandomSeed startup builtin\n\
             SSLSessionCache shmcb:{dir}/ssl_scache(512000)\nSSLSessionCacheTimeout 300\n\
             <VirtualHost 127.0.0.1:{port}>\nSSLEngine on\nSSLCertificateFile {dir}/x.pem\n\
             </VirtualHost>\n"
        )
    },
    ask: body,
    open: "GET /slow HTTP/1.0\r\n\r\n",
};

/// Starts Apache with one worker.
fn apache2() -> Option<Web> {
    apache2_of(&APACHE2)
}

fn apache2_of(sort: &'static Sort) -> Option<Web> {
    need("apache2").then(|| {
        let (dir, port) = (folder(), free_port());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        write(
            &dir.path().join("x.pem"),
            &(made.signing_key.serialize_pem() + &made.cert.pem()),
        );
        write(&dir.path().join("tls-port"), &free_port().to_string());
        let words = dir.path().join("words");
        std::fs::create_dir(&words).unwrap();
        for word in ["one", "two", "three", "four", "seventeen", "twelve"] {
            write(&words.join(word), word);
        }
        // It has no blocks on the disk.
        std::fs::File::create(words.join("slow"))
            .and_then(|file| file.set_len(64 << 20))
            .unwrap();
        let config = write(
            &dir.path().join(sort.file),
            &(sort.text)(dir.path(), port, "one"),
        );
        let mut command = command("apache2");
        command.arg("-DFOREGROUND").arg("-f").arg(config);
        Web::start(sort, port, Daemon::spawn(dir, &mut command))
    })
}

/// Returns a config that `apache2 -t` passes and that Apache cannot serve.
fn with_a_port(web: &Web, port: u16) -> String {
    web.config("three") + &format!("Listen 127.0.0.1:{port}\n")
}

#[test]
fn good_changes_converge_once_without_a_dropped_request() {
    let Some(web) = apache2() else { return };
    acts::converges(&web, true);
}

#[test]
fn mod_ssl_changes_nothing() {
    let Some(web) = apache2_of(&WITH_SSL) else {
        return;
    };
    acts::converges(&web, true);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = apache2() else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = apache2() else { return };
    web.fleet("");
    acts::refuses(
        &web,
        &web.config("two").replace("AliasMatch", "AliasMtach"),
        "Invalid command 'AliasMtach'",
    );
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = apache2() else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = apache2() else { return };
    acts::stopped_until_the_undo(&web);
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = apache2() else { return };
    acts::killed(&web);
}

#[test]
fn a_worker_with_an_open_connection_is_named() {
    let Some(web) = apache2() else { return };
    acts::drains(&web);
}

#[test]
fn a_taken_port_ends_apache_and_the_restart_command_is_shown() {
    let Some(web) = apache2() else { return };
    let (_taken, port) = acts::taken_port();
    acts::dies(&web, &with_a_port(&web, port));
}

#[test]
fn a_taken_port_ends_apache_and_it_is_revived() {
    let Some(web) = apache2() else { return };
    let (_taken, port) = acts::taken_port();
    // The test is its parent and does not reap it.
    let revive = ["sh", "-c", "rm pid; exec \"$@\"", "sh", "{exe}", "{args}"];
    acts::is_revived(&web, &with_a_port(&web, port), &revive);
}

/// Debian's `apache2.conf` names variables that only the environment of the process has.
#[test]
fn a_config_below_another_root_is_validated_with_the_variables_of_the_process() {
    if !need("apache2") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    std::fs::create_dir(dir.path().join("words")).unwrap();
    for word in ["one", "two"] {
        write(&dir.path().join("words").join(word), word);
    }
    let text = |word: &str| {
        (APACHE2.text)(dir.path(), port, word).replace(
            &format!("PidFile {}", dir.path().display()),
            "PidFile ${RUN_DIR}",
        )
    };
    write(&dir.path().join(APACHE2.file), &text("one"));
    let (two, none) = (text("two"), text("two").replace("AliasMatch", "Nonsense"));
    let mut command = command("apache2");
    command
        .arg("-DFOREGROUND")
        .arg("-d")
        .arg(dir.path())
        .env("RUN_DIR", dir.path());
    let web = Web::start(&APACHE2, port, Daemon::spawn(dir, &mut command));
    web.daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nkind = \"apache2\"\nmatch = {{ exe = \"apache2\", args = [\"{}\"] }}\n",
            web.daemon.dir.path().display()
        ),
    );
    assert!(
        web.broadcast_config(&none)
            .expect(4)
            .stderr
            .contains("Nonsense")
    );
    assert_eq!(web.broadcast_config(&two).expect(0).states(), ["confirmed"]);
    assert_eq!(web.word().as_deref(), Some("two"));
    web.daemon.signal(Signal::SIGTERM);
    until("it has ended", || !web.daemon.runs());
}
