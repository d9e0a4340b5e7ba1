//! A value, its revision, and what becomes of a request.

/// The longest revision, in bytes. It is mostly a digest, or a number.
pub(super) const MAX_REVISION: usize = 256;

/// The revision of a key: a text that changes with every write, and has no other meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(pub(super) String);

impl Revision {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a key, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Its revision.
    pub rev: Revision,
}

/// The end of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutResult {
    /// The key has the new value, at this revision.
    Stored(Revision),
    /// The key has another revision than the expected one, and stays as it is.
    Conflict,
}

/// The end of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitResult {
    /// The key has another revision than the known one; none if it does not exist any more.
    Changed(Option<Value>),
    /// The limit is over, and the key still has the known revision.
    Unchanged,
}

/// One reading of a key.
pub(super) enum Reading {
    /// The key has this value; none if it does not exist.
    Value(Option<Value>),
    /// The store says that the known revision is still the present one.
    Unchanged,
}

impl WaitResult {
    /// Returns the change of a key to `value` from the revision `known`; none if there is none.
    pub(super) fn of(value: Option<Value>, known: Option<&Revision>) -> Option<Self> {
        let rev = value.as_ref().map(|value| &value.rev);
        (rev != known).then_some(Self::Changed(value))
    }
}
