//! What the help of each command has beside its options: its group in the overview, examples, and
//! exit codes.

use crate::event::Verdict::{
    self, Busy, Converged, Failed, Invalid, Mixed, NoMatch, Refused, Unreachable, Usage,
};

/// The groups of the overview, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Reload,
    Look,
    Repair,
    Serve,
    More,
}

impl Group {
    pub(super) const ALL: [Self; 5] = [
        Self::Reload,
        Self::Look,
        Self::Repair,
        Self::Serve,
        Self::More,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Reload => "Reload",
            Self::Look => "Look (touches nothing)",
            Self::Repair => "Repair",
            Self::Serve => "Serve",
            Self::More => "More",
        }
    }
}

/// The exit codes of a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exits {
    /// Those of a run: every verdict.
    Run,
    /// These, each with what it says there. 1 and 2 say the same of every command.
    Of(&'static [(Verdict, &'static str)]),
}

impl Exits {
    /// Returns each code and what it says, in the order of the codes.
    pub(super) fn rows(self) -> Vec<(u8, &'static str)> {
        let own = match self {
            Self::Run => return Verdict::ALL.map(|all| (all.exit(), all.about())).to_vec(),
            Self::Of(own) => own.iter().copied(),
        };
        let every = [
            (Failed, "the command could not work"),
            (Usage, "bad arguments, or a bad fleet.toml"),
        ];
        let mut rows: Vec<_> = own
            .chain(every)
            .map(|(verdict, about)| (verdict.exit(), about))
            .collect();
        rows.sort_unstable();
        rows
    }
}

/// The page of one command.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) command: &'static str,
    pub(super) group: Group,
    /// Command lines, each with what it does.
    pub(super) examples: [(&'static str, &'static str); 2],
    pub(super) exits: Exits,
}

/// The page of every command that an operator sees, in the order of the overview.
pub(super) const PAGES: &[Page] = &[
    Page {
        command: "broadcast",
        group: Group::Reload,
        examples: [
            (
                "hello broadcast web --config new.toml --dry-run",
                "show the change",
            ),
            ("hello broadcast web --set message=hi", "make a change"),
        ],
        exits: Exits::Run,
    },
    Page {
        command: "watch",
        group: Group::Reload,
        examples: [
            (
                "hello watch web --listen 127.0.0.1:9200",
                "until SIGTERM, with metrics",
            ),
            ("hello watch --once", "one run over every group"),
        ],
        exits: Exits::Run,
    },
    Page {
        command: "status",
        group: Group::Look,
        examples: [
            ("hello status", "every group of the fleet"),
            ("hello status web -q", "only what does not agree"),
        ],
        exits: Exits::Of(&[
            (Converged, "every instance runs the config on its disk"),
            (NoMatch, "a group has no instance, or not its count"),
            (Mixed, "an instance does not agree, or a run is open"),
            (Busy, "a run is under way"),
        ]),
    },
    Page {
        command: "hosts",
        group: Group::Look,
        examples: [
            ("hello hosts", "every host of the fleet"),
            ("hello hosts --on 'role=edge,!zone=lab'", "some of them"),
        ],
        exits: Exits::Of(&[
            (Converged, "every host is ready"),
            (NoMatch, "no host, or a term that fits none"),
            (Refused, "a host was reached and cannot be used"),
            (Unreachable, "a host was not reached"),
        ]),
    },
    Page {
        command: "diff",
        group: Group::Look,
        examples: [
            ("hello diff", "the disk against what runs"),
            (
                "hello diff web --config new.toml",
                "the disk against a file",
            ),
        ],
        exits: Exits::Of(&[
            (Converged, "no difference"),
            (NoMatch, "a group has no instance"),
            (Mixed, "a target differs"),
        ]),
    },
    Page {
        command: "doctor",
        group: Group::Look,
        examples: [
            ("hello doctor web", "every instance of a group"),
            ("hello doctor 4711", "any process of this machine"),
        ],
        exits: Exits::Of(&[
            (
                Converged,
                "every process can be reloaded; with --group it was written",
            ),
            (NoMatch, "there is no such process"),
            (
                Refused,
                "a process cannot be reloaded, or has no group, and why is printed",
            ),
        ]),
    },
    Page {
        command: "history",
        group: Group::Look,
        examples: [
            ("hello history @", "the events of the last run"),
            ("hello history --gather", "the runs of every host"),
        ],
        exits: Exits::Of(&[
            (Converged, "printed"),
            (NoMatch, "no such run or host"),
            (Refused, "a host was reached and could not answer"),
            (Unreachable, "a host was not reached"),
        ]),
    },
    Page {
        command: "show",
        group: Group::Look,
        examples: [
            ("hello show @", "what the last run changed"),
            ("hello show 6af3e7c2", "a content by its digest"),
        ],
        exits: Exits::Of(&[
            (Converged, "printed"),
            (NoMatch, "no such run or content"),
            (Refused, "the content is a secret; see --reveal"),
        ]),
    },
    Page {
        command: "kinds",
        group: Group::Look,
        examples: [
            ("hello kinds", "every kind, and what its signal does"),
            ("hello kinds nginx", "a group to copy and change"),
        ],
        exits: Exits::Of(&[(Converged, "printed")]),
    },
    Page {
        command: "resume",
        group: Group::Repair,
        examples: [
            ("hello resume", "finish the newest open run"),
            ("hello resume 019a4c --dry-run", "show what would be done"),
        ],
        exits: Exits::Run,
    },
    Page {
        command: "revert",
        group: Group::Repair,
        examples: [
            (
                "hello revert",
                "the open run; else the last one, after a question",
            ),
            ("hello revert @-1", "the run before the last one"),
        ],
        exits: Exits::Run,
    },
    Page {
        command: "forget",
        group: Group::Repair,
        examples: [
            ("hello forget 019a4c7e", "remove a run"),
            (
                "hello forget 019a4c7e --abandon",
                "give up an open run as it is",
            ),
        ],
        exits: Exits::Of(&[
            (Converged, "removed"),
            (NoMatch, "no such run, content or host"),
            (Refused, "an open run needs it"),
            (Busy, "other runs hold the store"),
            (Unreachable, "a host was not reached, and keeps its part"),
        ]),
    },
    Page {
        command: "serve",
        group: Group::Serve,
        examples: [
            ("hello serve --config web.toml", "on `listen` of the file"),
            (
                "hello serve --config web.toml --listen 127.0.0.1:0",
                "on a free port",
            ),
        ],
        exits: Exits::Of(&[(Converged, "ended in order after SIGTERM")]),
    },
    Page {
        command: "check",
        group: Group::Serve,
        examples: [
            ("hello check web.toml", "one file"),
            ("hello check ./web.toml", "the same"),
        ],
        exits: Exits::Of(&[(Converged, "valid"), (Invalid, "not valid")]),
    },
    Page {
        command: "agent",
        group: Group::More,
        examples: [
            ("hello agent --stdio", "as a coordinator starts it"),
            (
                "hello agent --stdio --fleet ./fleet.toml",
                "with the groups of another file",
            ),
        ],
        exits: Exits::Of(&[(Converged, "the coordinator has ended the connection")]),
    },
    Page {
        command: "completions",
        group: Group::More,
        examples: [
            ("hello completions bash", "print the script"),
            ("hello completions fish", "for another shell"),
        ],
        exits: Exits::Of(&[(Converged, "printed")]),
    },
    Page {
        command: "schema",
        group: Group::More,
        examples: [
            ("hello schema result", "what -o json prints of a run"),
            ("hello schema fleet", "for an editor of fleet.toml"),
        ],
        exits: Exits::Of(&[(Converged, "printed")]),
    },
    Page {
        command: "help",
        group: Group::More,
        examples: [
            ("hello help fleet-file", "every key of fleet.toml"),
            ("hello help broadcast", "every option of a command"),
        ],
        exits: Exits::Of(&[(Converged, "printed")]),
    },
];
