//! `[[store]]`: what a request to a store needs, by the beginning of the URL of its keys.

use std::{ops::Range, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::values::duration;
use crate::{
    assertion::Access,
    fleet::{
        group::{Group, Speaks},
        placeholder,
        shapes::DurationText,
        source::{
            Address, AddressError, CREDENTIALS, CommandRevision, ContentSource, DEFAULT_POLL,
            DEFAULT_STORE_TIMEOUT, Key, Origin, StoreAccess, StoreCommands,
        },
        spanned::{SpannedError, spanned},
    },
};

#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Store")]
pub(super) struct RawStore {
    /// The keys that it is for: their URLs begin with this. The longest that fits counts.
    #[schemars(with = "String")]
    url: Option<Spanned<String>>,
    /// The command of `exec://` that prints the value of `{key}`. Exit 3: no such key.
    #[schemars(with = "Option<Vec<String>>")]
    get: Option<Spanned<Vec<Spanned<String>>>>,
    /// The command of `exec://` that stores its stdin if the revision is `{rev}`. Exit 3: it is
    /// another.
    #[schemars(with = "Option<Vec<String>>")]
    put: Option<Spanned<Vec<Spanned<String>>>>,
    /// The place of the revision of `exec://`. Default: `"digest"`.
    #[schemars(with = "Option<CommandRevision>")]
    rev: Option<Spanned<CommandRevision>>,
    /// PEM certificates that are trusted instead of those of the system.
    #[schemars(with = "Option<PathBuf>")]
    ca: Option<Spanned<PathBuf>>,
    /// Holds `USER:PASSWORD`.
    #[schemars(with = "Option<PathBuf>")]
    auth_file: Option<Spanned<PathBuf>>,
    /// Holds a token.
    #[schemars(with = "Option<PathBuf>")]
    bearer_file: Option<Spanned<PathBuf>>,
    /// The PEM certificate that the client shows.
    #[schemars(with = "Option<PathBuf>")]
    client_cert: Option<Spanned<PathBuf>>,
    /// The private key of `client_cert`.
    #[schemars(with = "Option<PathBuf>")]
    client_key: Option<Spanned<PathBuf>>,
    /// The longest time of a request, up to `"1h"`. Default: `"10s"`.
    #[schemars(with = "Option<DurationText>")]
    timeout: Option<Spanned<String>>,
    /// The time between two reads where the store has no watch. Default: `"5s"`.
    #[schemars(with = "Option<DurationText>")]
    poll: Option<Spanned<String>>,
}

/// One `[[store]]`, resolved.
#[derive(Debug, Clone)]
pub(super) struct Store {
    url: String,
    /// The place of its `url`.
    at: Range<usize>,
    access: StoreAccess,
}

/// Resolves every `[[store]]`.
///
/// # Errors
/// Fails with the first fault, with its position.
pub(super) fn stores(raw: Vec<Spanned<RawStore>>) -> Result<Vec<Store>, SpannedError> {
    let mut stores: Vec<Store> = Vec::new();
    for raw in raw {
        let span = raw.span();
        let raw = raw.into_inner();
        let url_span = raw.url.as_ref().map_or(span.clone(), Spanned::span);
        let store = store(raw, &span)?;
        if stores.iter().any(|other| other.url == store.url) {
            return Err(spanned(url_span, "two stores have this `url`"));
        }
        stores.push(store);
    }
    Ok(stores)
}

fn store(raw: RawStore, span: &Range<usize>) -> Result<Store, SpannedError> {
    let url = raw
        .url
        .ok_or_else(|| spanned(span.clone(), "`url` is missing"))?;
    let url_span = url.span();
    let url = url.into_inner();
    // A store alone has no key: the shortest one shows whether its keys can have URLs.
    let probe = match url.starts_with("nats://") {
        true if url.ends_with('/') => format!("{url}b/k"),
        true => format!("{url}/b/k"),
        false => format!("{}/k", url.trim_end_matches('/')),
    };
    let address = Address::parse(&url)
        .or_else(|_| Address::parse(&probe))
        .map_err(|why| {
            let names_credentials = matches!(why, AddressError::User | AddressError::Credential(_));
            let fault = spanned(url_span.clone(), why);
            if names_credentials {
                fault.hinted("credentials of a store come from files")
            } else {
                fault
            }
        })?;
    let is_exec = matches!(address, Address::Exec(_));
    let is_tls = match &address {
        Address::Http(origin, _) | Address::Etcd(origin, _) | Address::Nats { origin, .. } => {
            origin.tls
        }
        Address::Exec(_) => false,
    };
    let commands = commands(raw.get, raw.put, raw.rev, is_exec, &url_span)?;
    let (ca, files) = files(
        raw.ca,
        [
            raw.auth_file,
            raw.bearer_file,
            raw.client_cert,
            raw.client_key,
        ],
        is_tls || url.starts_with("nats://"),
        is_exec,
    )?;
    let access = StoreAccess {
        ca,
        files,
        timeout: raw.timeout.map_or(Ok(DEFAULT_STORE_TIMEOUT), positive)?,
        poll: raw.poll.map_or(Ok(DEFAULT_POLL), positive)?,
        commands,
    };
    Ok(Store {
        url,
        at: url_span,
        access,
    })
}

/// Reads a duration that is not zero.
fn positive(text: Spanned<String>) -> Result<Duration, SpannedError> {
    let span = text.span();
    match duration(text)? {
        zero if zero.is_zero() => Err(spanned(span, "a store needs more than no time")),
        time => Ok(time),
    }
}

type RawArgv = Option<Spanned<Vec<Spanned<String>>>>;

fn commands(
    get: RawArgv,
    put: RawArgv,
    rev: Option<Spanned<CommandRevision>>,
    is_exec: bool,
    url: &Range<usize>,
) -> Result<Option<StoreCommands>, SpannedError> {
    if !is_exec {
        let span = [&get, &put]
            .into_iter()
            .flatten()
            .map(Spanned::span)
            .chain(rev.as_ref().map(Spanned::span))
            .next();
        return match span {
            Some(span) => Err(spanned(span, "get, put and rev go with a `url` of exec://")),
            None => Ok(None),
        };
    }
    let get = get.ok_or_else(|| {
        spanned(
            url.clone(),
            "a store of exec:// has a command that reads it: `get = [argv]`",
        )
    })?;
    Ok(Some(StoreCommands {
        key: String::new(),
        get: argv(get, &["key"])?,
        put: put
            .map(|put| argv(put, &["key", "rev"]))
            .transpose()?
            .unwrap_or_default(),
        rev: rev.map(Spanned::into_inner).unwrap_or_default(),
    }))
}

/// Checks an argv whose only placeholders are `known`.
fn argv(raw: Spanned<Vec<Spanned<String>>>, known: &[&str]) -> Result<Vec<String>, SpannedError> {
    let span = raw.span();
    let argv = raw.into_inner();
    if argv.is_empty() {
        return Err(spanned(span, "the command is empty"));
    }
    for arg in &argv {
        let mut names = std::iter::successors(placeholder(arg.get_ref()), |(_, _, after)| {
            placeholder(after)
        });
        if let Some((_, name, _)) = names.find(|(_, name, _)| !known.contains(name)) {
            let names: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
            return Err(
                spanned(arg.span(), format!("no placeholder `{{{name}}}` here"))
                    .hinted(format!("there are: {}", names.join(", "))),
            );
        }
    }
    Ok(argv.into_iter().map(Spanned::into_inner).collect())
}

/// Checks the files of credentials: each is absolute, or a systemd credential.
fn files(
    ca: Option<Spanned<PathBuf>>,
    raw: [Option<Spanned<PathBuf>>; 4],
    is_tls: bool,
    is_exec: bool,
) -> Result<(Option<PathBuf>, Access), SpannedError> {
    let all = || ca.iter().chain(raw.iter().flatten());
    let Some(first) = all().next().map(Spanned::span) else {
        return Ok((None, Access::default()));
    };
    if is_exec {
        return Err(spanned(
            first,
            "the commands of a store of exec:// read their credentials themselves",
        ));
    }
    for path in all() {
        let text = path.get_ref().to_string_lossy();
        let is_credential = text
            .strip_prefix(CREDENTIALS)
            .is_some_and(|name| !name.is_empty() && !name.contains('/') && name != "..");
        if !is_credential && !path.get_ref().is_absolute() {
            return Err(spanned(
                path.span(),
                format!("{text:?} is neither an absolute path nor {CREDENTIALS}NAME"),
            ));
        }
    }
    if ca.is_some() && !is_tls {
        return Err(spanned(first, "ca is for a store with TLS"));
    }
    let files = Access::from(raw.map(|path| path.map(Spanned::into_inner)));
    match files.conflict(is_tls) {
        Some(why) => Err(spanned(first, why)),
        None => Ok((ca.map(Spanned::into_inner), files)),
    }
}

/// Returns the key of a URL, with the access of its store.
///
/// # Errors
/// Fails if it is not the URL of a key, or if no table has the commands that read it.
pub(super) fn key(url: &str, at: Range<usize>, stores: &[Store]) -> Result<Key, SpannedError> {
    let address = Address::parse(url).map_err(|why| address_fault(at.clone(), why))?;
    let store = store_of(url, stores);
    let mut access = store.map_or_else(StoreAccess::default, |store| store.access.clone());
    if let (Address::Exec(_), store) = (address, store) {
        let key = store
            .and_then(|store| rest(url, &store.url))
            .unwrap_or_default();
        let commands = access
            .commands
            .as_mut()
            .ok_or_else(|| spanned(at.clone(), "no [[store]] has the commands for this URL"))?;
        if key.is_empty() {
            return Err(spanned(at, "the URL names a store and no key"));
        }
        commands.key = key.to_owned();
    }
    Ok(Key {
        url: url.to_owned(),
        access,
    })
}

/// Returns the fault of a URL, with the place of the credentials that it must not have.
pub(super) fn address_fault(at: Range<usize>, why: AddressError) -> SpannedError {
    let names_credentials = matches!(why, AddressError::User | AddressError::Credential(_));
    let fault = spanned(at, why);
    if names_credentials {
        fault.hinted("its credentials stand in [[store]]")
    } else {
        fault
    }
}

/// Returns the access of a URL: that of the store with the longest `url` that it begins with.
pub(super) fn access_of(url: &str, stores: &[Store]) -> StoreAccess {
    store_of(url, stores).map_or_else(StoreAccess::default, |store| store.access.clone())
}

fn store_of<'a>(url: &str, stores: &'a [Store]) -> Option<&'a Store> {
    let fitting = stores
        .iter()
        .filter(|store| rest(url, &store.url).is_some());
    fitting.max_by_key(|store| store.url.len())
}

/// Checks that each store is for a key of a group. A group of `hello serve` may have servers that
/// name a key on their command lines.
///
/// # Errors
/// Fails with the `url` of a store that is for none.
pub(super) fn check_used(stores: &[Store], groups: &[Group]) -> Result<(), SpannedError> {
    if groups.is_empty() || groups.iter().any(|group| group.speaks == Speaks::Hello) {
        return Ok(());
    }
    let is_used = |store: &&Store| {
        let keys = groups.iter().flat_map(|group| {
            let source = group.source.as_ref().and_then(ContentSource::key);
            group.key().into_iter().chain(source)
        });
        // The access to a server alone is for the messages between hosts.
        Origin::of_nats(&store.url).is_ok()
            || keys
                .map(|key| rest(&key.url, &store.url))
                .any(|rest| rest.is_some())
    };
    match stores.iter().find(|store| !is_used(store)) {
        None => Ok(()),
        Some(store) => Err(spanned(
            store.at.clone(),
            "no `source` and no `config` of a group begins with this `url`",
        )
        .hinted("correct it, or remove the table")),
    }
}

/// Returns the text of `url` behind `prefix`, without a `/` at its beginning. None if the prefix is
/// another one, or ends within a name: a credential must not reach another host.
fn rest<'a>(url: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = url.strip_prefix(prefix)?;
    match rest.strip_prefix('/') {
        _ if prefix.ends_with('/') => Some(rest),
        Some(rest) => Some(rest),
        None => rest.is_empty().then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_slash() {
        assert_eq!(rest("https://h/a/b", "https://h"), Some("a/b"));
        assert_eq!(rest("https://h/a/b", "https://h/a/"), Some("b"));
        assert_eq!(rest("https://h", "https://h"), Some(""));
        assert_eq!(rest("https://h.example/a", "https://h"), None);
        assert_eq!(rest("https://h:1/a", "https://h"), None);
        assert_eq!(rest("https://h/ab", "https://h/a"), None);
    }
}
