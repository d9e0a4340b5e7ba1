//! Hosts of this machine: a server and an agent each, behind sshd or behind a command.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::support::{
    ask,
    fleet::{Running, config, folder, write},
};

/// For sshd to listen, and for a server to serve a config.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Hosts {
    n: usize,
    servers: Vec<(Running, SocketAddr)>,
    _sshd: Option<Running>,
    // Last: it goes when the servers are gone.
    dir: tempfile::TempDir,
}

/// The address of a host, which names its folder too.
fn address(index: usize) -> String {
    format!("127.0.1.{}", index + 1)
}

impl Hosts {
    pub(crate) fn behind_commands(n: usize) -> Self {
        let dir = folder();
        let connect = agent(dir.path());
        let servers = servers(dir.path(), n);
        fleet(dir.path(), n, &connect);
        Self {
            n,
            servers,
            _sshd: None,
            dir,
        }
    }

    pub(crate) fn over_ssh(n: usize) -> Self {
        let dir = folder();
        let (sshd, port) = sshd(dir.path(), n);
        let ssh = dir.path().join("ssh.conf");
        let mut connect = vec!["ssh".to_owned(), "-T".into(), "-F".into()];
        connect.extend([ssh.display().to_string(), "--".into(), "{address}".into()]);
        connect.extend(agent(dir.path()));
        let place = dir.path().display();
        write(
            &ssh,
            &format!(
                "Port {port}\nUser root\nBatchMode yes\nIdentitiesOnly yes\n\
                 IdentityFile {place}/key\nUserKnownHostsFile {place}/known_hosts\n"
            ),
        );
        let servers = servers(dir.path(), n);
        fleet(dir.path(), n, &connect);
        Self {
            n,
            servers,
            _sshd: Some(sshd),
            dir,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn new_config(&self) -> PathBuf {
        self.folder().join("new.toml")
    }

    /// Every server must serve the config of this digest. Only `hello` waits until it does.
    pub(crate) fn must_serve(&self, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        for (_, address) in &self.servers {
            while ask::digest(*address).unwrap() != wanted {
                assert!(Instant::now() < deadline, "{address} serves another config");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn addresses(&self) -> Vec<String> {
        (0..self.n).map(address).collect()
    }

    /// `ssh HOST true` to all hosts at once.
    pub(crate) fn true_everywhere(&self) -> Vec<String> {
        let script = format!(
            "for host in {}; do ssh -T -F {}/ssh.conf $host true & done; wait",
            self.addresses().join(" "),
            self.folder().display()
        );
        vec!["sh".into(), "-c".into(), script]
    }

    pub(crate) fn clush(&self, words: &[String]) -> Vec<String> {
        let options = format!("-F {}/ssh.conf", self.folder().display());
        let mut argv = vec!["clush".to_owned(), "-S".into(), "-o".into(), options];
        argv.extend(["-w".into(), self.addresses().join(",")]);
        argv.extend_from_slice(words);
        argv
    }

    /// The four calls that one types: copy, check, exchange and signal, ask.
    pub(crate) fn clush_sequence(&self) -> Vec<Vec<String>> {
        let dir = self.folder().display().to_string();
        let hello = env!("CARGO_BIN_EXE_hello");
        let copied = format!("{dir}/copied.toml");
        let copy = ["--copy".into(), format!("{dir}/new.toml")];
        let to = ["--dest".into(), copied.clone()];
        // All hosts share the disk: each takes its own file from the one that was copied. The third
        // word of SSH_CONNECTION is the address of the host.
        let there = format!("set -- $SSH_CONNECTION; cd {dir}/$3");
        let exchange =
            format!("{there} && cp {copied} next && mv next web.toml && kill -HUP $(cat pid)");
        vec![
            self.clush(&[copy, to].concat()),
            self.clush(&[format!("{hello} check {copied}")]),
            self.clush(&[exchange]),
            self.clush(&[format!("{there} && curl -sf $(cat url)")]),
        ]
    }

    /// One run of a playbook that does the same.
    pub(crate) fn playbook(&self) -> Vec<String> {
        let dir = self.folder().display();
        let mut inventory = "[all]\n".to_owned();
        for ((_, server), address) in self.servers.iter().zip(self.addresses()) {
            writeln!(inventory, "{address} url=http://{server}/").unwrap();
        }
        // The Python of the system: it needs nothing of an environment that ssh does not pass on.
        write!(
            inventory,
            "[all:vars]\nansible_ssh_common_args=-F {dir}/ssh.conf\n\
             ansible_python_interpreter=/usr/bin/python3\n"
        )
        .unwrap();
        write(&self.folder().join("inventory"), &inventory);
        let hello = env!("CARGO_BIN_EXE_hello");
        let tasks = format!(
            "- hosts: all\n  gather_facts: false\n  tasks:\n\
             \x20 - copy: {{src: {dir}/new.toml, dest: '{dir}/{{{{inventory_hostname}}}}/web.toml', validate: '{hello} check %s'}}\n\
             \x20 - shell: kill -HUP $(cat {dir}/{{{{inventory_hostname}}}}/pid)\n\
             \x20 - uri: {{url: '{{{{url}}}}'}}\n"
        );
        let play = self.folder().join("play.yml");
        write(&play, &tasks);
        let words = ["ansible-playbook", "-f", "64", "-i"];
        let mut argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        argv.push(format!("{dir}/inventory"));
        argv.push(play.display().to_string());
        argv
    }
}

/// The command that starts the agent of a host.
fn agent(dir: &Path) -> Vec<String> {
    let dir = dir.display();
    let words = [env!("CARGO_BIN_EXE_hello"), "agent", "--stdio", "--fleet"];
    let mut argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    argv.push(format!("{dir}/{{address}}/fleet.toml"));
    argv.push("--state".into());
    argv.push(format!("{dir}/{{address}}/state"));
    argv
}

/// Writes the fleet file of the coordinator.
fn fleet(dir: &Path, n: usize, connect: &[String]) {
    let mut text = "version = 1\n[hosts]\nlist = [\n".to_owned();
    for index in 0..n {
        let address = address(index);
        writeln!(
            text,
            "  {{ name = \"h{index}\", address = \"{address}\" }},"
        )
        .unwrap();
    }
    let words: Vec<_> = connect.iter().map(|word| format!("{word:?}")).collect();
    writeln!(text, "]\nconnect = [{}]", words.join(", ")).unwrap();
    write(&dir.join("fleet.toml"), &text);
}

/// Starts the server of each host, and writes what is in the folder of each.
fn servers(dir: &Path, n: usize) -> Vec<(Running, SocketAddr)> {
    let start = |index| {
        let place = dir.join(address(index));
        std::fs::create_dir(&place).unwrap();
        let path = place.join("web.toml");
        write(&path, &config("first"));
        let log = place.join("log");
        let mut server = Running::start(
            Command::new(env!("CARGO_BIN_EXE_hello"))
                .args(["serve", "--config"])
                .arg(&path)
                .stdout(Stdio::piped())
                .stderr(std::fs::File::create(&log).unwrap()),
        );
        let listens = server.address(&log);
        write(&place.join("pid"), &server.pid().to_string());
        write(&place.join("url"), &format!("http://{listens}/"));
        write(
            &place.join("fleet.toml"),
            &format!(
                "version = 1\n[agent]\nname = \"h{index}\"\n[[group]]\nname = \"web\"\n\
                 kind = \"hello\"\ncount = 1\n\
                 match = {{ exe = \"*\", args = [\"serve\", \"{}\"] }}\n",
                path.display()
            ),
        );
        (server, listens)
    };
    (0..n).map(start).collect()
}

/// Starts sshd on the address of every host, and makes its key known.
fn sshd(dir: &Path, n: usize) -> (Running, u16) {
    for name in ["key", "host_key"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        assert!(keygen.arg(dir.join(name)).status().unwrap().success());
    }
    let free = std::net::TcpListener::bind(("127.0.1.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let place = dir.display();
    let mut conf = format!(
        "Port {port}\nHostKey {place}/host_key\nAuthorizedKeysFile {place}/key.pub\n\
         PidFile none\nStrictModes no\nPermitRootLogin yes\nUsePAM no\nMaxStartups 200\n\
         Subsystem sftp internal-sftp\n"
    );
    let key = std::fs::read_to_string(dir.join("host_key.pub")).unwrap();
    let mut known = String::new();
    for index in 0..n {
        let address = address(index);
        writeln!(conf, "ListenAddress {address}").unwrap();
        write!(known, "[{address}]:{port} {key}").unwrap();
    }
    write(&dir.join("sshd.conf"), &conf);
    write(&dir.join("known_hosts"), &known);
    std::fs::create_dir_all("/run/sshd").unwrap();
    let program = super::program("sshd", "openssh-server").unwrap();
    let log = std::fs::File::create(dir.join("sshd.log")).unwrap();
    let mut sshd = Command::new(program);
    sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd.conf"));
    let sshd = Running::start(sshd.stdout(Stdio::null()).stderr(log));
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect((address(n - 1).as_str(), port)).is_err() {
        assert!(Instant::now() < deadline, "sshd does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    (sshd, port)
}
