//! What an inventory command prints: Ansible's JSON, the JSON of this program, or lines.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{AddressFault, HostEntry, HostName, MAX_HOSTS, NameError, check_address, is_label};

/// The form of an inventory, which its text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The JSON of `ansible-inventory --list` and of Ansible's inventory scripts.
    Ansible,
    /// `{"hosts": {NAME: {"address": TEXT, LABEL: VALUE}}}`.
    Json,
    /// `NAME [ADDRESS] [LABEL=VALUE ..]`, one host per line.
    Lines,
}

/// Why an inventory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It begins as JSON, and is none.
    #[error("it begins as JSON and is none: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It is JSON of another form.
    #[error(
        "its JSON has neither `_meta`, nor `hosts`, nor a group with `hosts`; see `hello help \
         hosts`"
    )]
    Form,
    /// A name cannot be used.
    #[error("{0}")]
    Name(#[from] NameError),
    /// An address cannot be used.
    #[error("the address {address:?} of `{host}` cannot be used: {why}")]
    Address {
        /// The host.
        host: HostName,
        /// The address.
        address: String,
        /// The reason.
        why: AddressFault,
    },
    /// A word of a line is no label.
    #[error("line {line}: {word:?} is no LABEL=VALUE")]
    Word {
        /// The line, from 1.
        line: usize,
        /// The word.
        word: String,
    },
    /// It has too many hosts.
    #[error("it has more than {MAX_HOSTS} hosts")]
    Many,
}

/// Reads the hosts of an inventory, in its order.
///
/// # Errors
/// Fails if the text has none of the three forms, or names a host that cannot be used.
pub fn read(bytes: &[u8]) -> Result<(Format, Vec<HostEntry>), InventoryError> {
    let text = std::str::from_utf8(bytes).map_err(|_| InventoryError::NotText)?;
    let (format, hosts) = if text.trim_start().starts_with('{') {
        let object: Map<String, Value> = serde_json::from_str(text)?;
        match object.get("hosts") {
            Some(Value::Object(hosts)) if !object.contains_key("_meta") => {
                (Format::Json, own(hosts)?)
            }
            _ => (Format::Ansible, ansible(&object)?),
        }
    } else {
        (Format::Lines, lines(text)?)
    };
    if hosts.len() > MAX_HOSTS {
        return Err(InventoryError::Many);
    }
    Ok((format, hosts))
}

fn lines(text: &str) -> Result<Vec<HostEntry>, InventoryError> {
    let mut hosts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace().peekable();
        let Some(name) = words.next() else { continue };
        let mut host = HostEntry::named(HostName::new(name)?);
        if let Some(address) = words.next_if(|word| !word.contains('=')) {
            set_address(&mut host, address)?;
        }
        for word in words {
            let label = word
                .split_once('=')
                .filter(|(key, value)| is_label(key, value));
            let (key, value) = label.ok_or_else(|| InventoryError::Word {
                line: index + 1,
                word: word.to_owned(),
            })?;
            host.labels.insert(key.to_owned(), value.to_owned());
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn own(hosts: &Map<String, Value>) -> Result<Vec<HostEntry>, InventoryError> {
    let host = |(name, variables): (&String, &Value)| {
        let mut host = HostEntry::named(HostName::new(name)?);
        take_variables(&mut host, variables, "address")?;
        Ok(host)
    };
    hosts.iter().map(host).collect()
}

/// Reads Ansible's form: `_meta.hostvars` has the variables of each host, and every other member is
/// a group with `hosts` and `children`, or the list of its hosts.
fn ansible(object: &Map<String, Value>) -> Result<Vec<HostEntry>, InventoryError> {
    let variables = object
        .get("_meta")
        .and_then(|meta| meta.get("hostvars"))
        .and_then(Value::as_object);
    let groups: BTreeMap<&str, Group<'_>> = object
        .iter()
        .filter(|(name, _)| *name != "_meta")
        .filter_map(|(name, value)| Some((name.as_str(), Group::of(value)?)))
        .collect();
    if variables.is_none() && groups.is_empty() {
        return Err(InventoryError::Form);
    }
    let of_variables = variables
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str);
    // The order of the file, not of the map of groups: it is the order of the waves.
    let of_groups = object
        .keys()
        .filter_map(|name| groups.get(name.as_str()))
        .flat_map(|group| group.hosts.iter().copied());
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = of_groups
        .chain(of_variables)
        .filter(|name| seen.insert(*name))
        .collect();
    let members: Vec<(&str, BTreeSet<&str>)> = groups
        .keys()
        .map(|name| (*name, members(name, &groups)))
        .collect();
    let host = |name: &&str| {
        let mut host = HostEntry::named(HostName::new(name)?);
        if let Some(variables) = variables.and_then(|all| all.get(*name)) {
            take_variables(&mut host, variables, "ansible_host")?;
        }
        for (group, _) in members.iter().filter(|(_, hosts)| hosts.contains(name)) {
            let key = format!("group.{group}");
            if is_label(&key, "yes") {
                host.labels.insert(key, "yes".into());
            }
        }
        Ok(host)
    };
    names.iter().map(host).collect()
}

/// A group of Ansible's form.
struct Group<'a> {
    hosts: Vec<&'a str>,
    children: Vec<&'a str>,
}

impl<'a> Group<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        let texts = |value: Option<&'a Value>| -> Vec<&'a str> {
            let list = value.and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect()
        };
        match value {
            Value::Array(_) => Some(Self {
                hosts: texts(Some(value)),
                children: Vec::new(),
            }),
            Value::Object(group) => {
                let is_group = ["hosts", "children", "vars"]
                    .iter()
                    .any(|key| group.contains_key(*key));
                is_group.then(|| Self {
                    hosts: texts(group.get("hosts")),
                    children: texts(group.get("children")),
                })
            }
            _ => None,
        }
    }
}

/// Returns the hosts of a group and of all groups below it.
fn members<'a>(name: &'a str, groups: &BTreeMap<&'a str, Group<'a>>) -> BTreeSet<&'a str> {
    let mut hosts = BTreeSet::new();
    let mut seen = BTreeSet::from([name]);
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let Some(group) = groups.get(name) else {
            continue;
        };
        hosts.extend(&group.hosts);
        // A group may stand below itself by mistake.
        open.extend(group.children.iter().filter(|child| seen.insert(**child)));
    }
    hosts
}

/// Takes the address and the labels of a host. A variable that is no text, number or bool, or has
/// several lines, is no label: inventories hold keys and scripts as well.
fn take_variables(
    host: &mut HostEntry,
    variables: &Value,
    address: &str,
) -> Result<(), InventoryError> {
    for (key, value) in variables.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => continue,
        };
        if key == address {
            set_address(host, &text)?;
        } else if is_label(key, &text) {
            host.labels.insert(key.clone(), text);
        }
    }
    Ok(())
}

fn set_address(host: &mut HostEntry, address: &str) -> Result<(), InventoryError> {
    check_address(address).map_err(|why| InventoryError::Address {
        host: host.name.clone(),
        address: address.to_owned(),
        why,
    })?;
    host.address = address.to_owned();
    Ok(())
}
