//! Terms that select hosts: `--on`, `--except`, and `hosts` of a group.

use std::{collections::BTreeSet, fmt, str::FromStr};

use glob::Pattern;
use serde::{Deserialize, Serialize};

use super::{HostEntry, HostName, RangeError, expand};

/// One term of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// Names that fit a glob, and hosts with a label of this name.
    Word(Pattern),
    /// The names that a range stands for.
    Range(String, BTreeSet<String>),
    /// A label whose value fits a glob.
    Label(String, Pattern),
    /// Hosts of an earlier run: its id, and how they ended there.
    Run(String, Ended),
    /// Hosts that another term does not select.
    Not(Box<Self>),
}

/// How a host ended in an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// An instance of it failed.
    Failed,
    /// It was not reached.
    Unreachable,
    /// It was lost during the run.
    Lost,
    /// The run signalled an instance of it or changed a target.
    Touched,
}

/// Why a text is no term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// Nothing stands between two commas.
    #[error("an empty term")]
    Empty,
    /// The glob is not well formed.
    #[error("{0:?} is no glob: {1}")]
    Glob(String, &'static str),
    /// The range is not well formed.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The term after `@` is not `RUN:STATE`.
    #[error("{0:?} is not @RUN:failed, @RUN:unreachable, @RUN:lost or @RUN:touched")]
    Run(String),
    /// A file has a term about an earlier run.
    #[error("a fleet file cannot name an earlier run, such as {0:?}")]
    OfFile(String),
}

/// A term that selects no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no host fits `{0}`")]
pub struct Unmatched(pub Term);

/// Terms between commas. They form a union, less what their negations name; without any other term
/// a negation is taken from all hosts. It is stored as its text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression(Vec<Term>);

impl FromStr for Term {
    type Err = TermError;

    fn from_str(text: &str) -> Result<Self, TermError> {
        let glob =
            |text: &str| Pattern::new(text).map_err(|e| TermError::Glob(text.to_owned(), e.msg));
        if let Some(rest) = text.strip_prefix('!') {
            return Ok(Self::Not(Box::new(rest.parse()?)));
        }
        if let Some(rest) = text.strip_prefix('@') {
            let ended = rest.rsplit_once(':').and_then(|(run, state)| {
                let state = Ended::ALL.into_iter().find(|ended| ended.word() == state)?;
                (!run.is_empty()).then(|| Self::Run(run.to_owned(), state))
            });
            return ended.ok_or_else(|| TermError::Run(text.to_owned()));
        }
        if text.is_empty() {
            return Err(TermError::Empty);
        }
        if let Some((key, value)) = text.split_once('=') {
            return Ok(Self::Label(key.to_owned(), glob(value)?));
        }
        if text.contains(['[', ']']) {
            let names = expand(text)?.into_iter().collect();
            return Ok(Self::Range(text.to_owned(), names));
        }
        Ok(Self::Word(glob(text)?))
    }
}

impl FromStr for Expression {
    type Err = TermError;

    /// Reads terms between commas. A comma between brackets belongs to its range.
    fn from_str(text: &str) -> Result<Self, TermError> {
        let mut is_inside = false;
        let is_end = |c: char| {
            is_inside = match c {
                '[' => true,
                ']' => false,
                _ => is_inside,
            };
            c == ',' && !is_inside
        };
        text.split(is_end)
            .map(|term| term.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<String> for Expression {
    type Error = TermError;

    fn try_from(text: String) -> Result<Self, TermError> {
        text.parse()
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.to_string()
    }
}

impl Ended {
    const ALL: [Self; 4] = [Self::Failed, Self::Unreachable, Self::Lost, Self::Touched];

    const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Touched => "touched",
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(glob) => f.write_str(glob.as_str()),
            Self::Range(text, _) => f.write_str(text),
            Self::Label(key, glob) => write!(f, "{key}={}", glob.as_str()),
            Self::Run(run, ended) => write!(f, "@{run}:{}", ended.word()),
            Self::Not(term) => write!(f, "!{term}"),
        }
    }
}

impl Term {
    fn fits(&self, host: &HostEntry, of_run: &impl Fn(&str, Ended, &HostName) -> bool) -> bool {
        match self {
            Self::Word(glob) => {
                glob.matches(host.name.as_str()) || host.labels.contains_key(glob.as_str())
            }
            Self::Range(_, names) => names.contains(host.name.as_str()),
            Self::Label(key, glob) => host.labels.get(key).is_some_and(|v| glob.matches(v)),
            Self::Run(run, ended) => of_run(run, *ended, &host.name),
            Self::Not(term) => !term.fits(host, of_run),
        }
    }
}

impl Expression {
    /// Reads the terms of a fleet file. They cannot name an earlier run: each run would change what
    /// the file means.
    ///
    /// # Errors
    /// Fails if a text between two commas is no term, or if a term is about an earlier run.
    pub fn of_file(text: &str) -> Result<Self, TermError> {
        let terms: Self = text.parse()?;
        let run = terms.runs().next().map(|(run, _)| format!("@{run}"));
        run.map_or(Ok(terms), |run| Err(TermError::OfFile(run)))
    }

    /// Adds the terms of another expression.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Tells whether there is no term.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the runs that terms name, with the states.
    pub fn runs(&self) -> impl Iterator<Item = (&str, Ended)> {
        self.0.iter().filter_map(|term| {
            let mut term = term;
            while let Term::Not(inner) = term {
                term = inner;
            }
            match term {
                Term::Run(run, ended) => Some((run.as_str(), *ended)),
                _ => None,
            }
        })
    }

    /// Returns the terms that select these hosts by their names.
    #[must_use]
    pub fn of_hosts(hosts: &[HostName]) -> Self {
        let term = |host: &HostName| host.as_str().parse().ok();
        Self(hosts.iter().filter_map(term).collect())
    }

    /// Tells whether the terms select a host, without a look at earlier runs.
    #[must_use]
    pub fn fits(&self, host: &HostEntry) -> bool {
        let no_run = |_: &str, _, _: &HostName| false;
        let (negated, wanted): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|term| matches!(term, Term::Not(_)));
        (wanted.is_empty() || wanted.iter().any(|term| term.fits(host, &no_run)))
            && negated.iter().all(|term| term.fits(host, &no_run))
    }

    /// Returns the indexes of the hosts that the terms select, in the order of `hosts`. `of_run`
    /// tells whether a host ended so in an earlier run.
    ///
    /// # Errors
    /// Fails with the first term that fits no host: a misspelt term must not shrink a run.
    pub fn select(
        &self,
        hosts: &[HostEntry],
        of_run: impl Fn(&str, Ended, &HostName) -> bool,
    ) -> Result<Vec<usize>, Unmatched> {
        for term in &self.0 {
            let named = if let Term::Not(inner) = term {
                inner
            } else {
                term
            };
            if !hosts.iter().any(|host| named.fits(host, &of_run)) {
                return Err(Unmatched(term.clone()));
            }
        }
        let (negated, wanted): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|term| matches!(term, Term::Not(_)));
        let is_selected = |host: &HostEntry| {
            (wanted.is_empty() || wanted.iter().any(|term| term.fits(host, &of_run)))
                && negated.iter().all(|term| term.fits(host, &of_run))
        };
        let selected = hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| is_selected(host));
        Ok(selected.map(|(index, _)| index).collect())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.0.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(f, "{separator}{term}")?;
        }
        Ok(())
    }
}
