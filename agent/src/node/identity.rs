//! Who this node is: a public id and a secret, made once and kept for the life of the card. Pure: texts in, texts out.
//!
//! Kept four times below the state folder: `client-id` and `secret-id` as Nomad names them, so that an existing node can be
//! taken over, and both together in `identity.a` and `identity.b`, because a card that loses its id is a new node to the
//! servers. Each file is written whole (new file, sync, rename).
//!
//! File bytes: `client-id`, `secret-id`: one UUID, 36 characters; white space around it is ignored.
//! `identity.a`, `identity.b`: id, line feed, secret, line feed: 74 bytes; anything else is a torn copy.
//! Errors: [`Damaged`], when there are files but no whole identity. A new one is never made over the remains of an old one.
//! Source: decision 26, `spec/runtime.md` 6.9; Nomad 1.3.1 `client/client.go` (`setupNode`, names and form of the files).

use core::fmt;

use dunlin_hal::entropy::Rng;
use dunlin_runtime::id::NodeId;

/// The files, below the state folder, in the order of [`Files`].
pub const FILE_NAMES: [&str; 4] = ["client-id", "secret-id", "identity.a", "identity.b"];

/// What the files hold; `None` = not there.
pub type Files = [Option<String>; 4];

/// The node's secret: proves to servers that it is the same node. Not shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretId(pub [u8; 16]);

impl SecretId {
    /// The textual form, for the file and for servers.
    #[must_use]
    pub fn text(&self) -> String {
        NodeId(self.0).to_string()
    }
}

impl fmt::Debug for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretId(..)")
    }
}

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Known to everybody.
    pub id: NodeId,
    /// Known to the servers only.
    pub secret: SecretId,
}

/// There are files, but no whole identity in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the node's identity is damaged: none of {} holds it whole; restore one, or remove all to start as a new node",
            FILE_NAMES.join(", ")
        )
    }
}

impl core::error::Error for Damaged {}

impl Identity {
    /// A new node.
    pub fn fresh(rng: &mut Rng) -> Self {
        Self { id: NodeId(rng.uuid()), secret: SecretId(rng.uuid()) }
    }

    /// The identity in `files`: Nomad's pair first, since an operator may have put it there, then the copies.
    /// `Ok(None)` = no file at all: the first start.
    pub fn restore(files: &Files) -> Result<Option<Self>, Damaged> {
        let [id, secret, a, b] = files;
        let pair = id.as_deref().zip(secret.as_deref()).and_then(|(id, secret)| Self::of(id.trim(), secret.trim()));
        let copy = |text: &Option<String>| {
            let (id, secret) = text.as_deref()?.strip_suffix('\n')?.split_once('\n')?;
            Self::of(id, secret)
        };
        match pair.or_else(|| copy(a)).or_else(|| copy(b)) {
            Some(identity) => Ok(Some(identity)),
            None if files.iter().all(Option::is_none) => Ok(None),
            None => Err(Damaged),
        }
    }

    /// What the files should hold; write those that differ.
    #[must_use]
    pub fn files(&self) -> [String; 4] {
        let (id, secret) = (self.id.to_string(), self.secret.text());
        let copy = format!("{id}\n{secret}\n");
        [id, secret, copy.clone(), copy]
    }

    fn of(id: &str, secret: &str) -> Option<Self> {
        let (id, secret) = (NodeId::parse(id)?, NodeId::parse(secret)?);
        // Zeros are what a torn write leaves, never an id.
        (!id.is_nil() && !secret.is_nil()).then_some(Self { id, secret: SecretId(secret.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hal::sim::entropy::SimEntropy;

    fn identity(seed: u64) -> Identity {
        Identity::fresh(&mut Rng::new(&mut SimEntropy::new(seed)))
    }

    fn kept(identity: &Identity) -> Files {
        identity.files().map(Some)
    }

    #[test]
    fn any_whole_copy_is_enough() {
        let one = identity(1);
        assert_eq!(Identity::restore(&kept(&one)), Ok(Some(one)));
        let torn = || Some("29fbd40e-dc6c".to_owned());
        let [id, _, a, b] = kept(&one);
        for files in [[None, None, None, b.clone()], [id, None, torn(), b], [torn(), torn(), a.clone(), None], [None, torn(), a, torn()]] {
            assert_eq!(Identity::restore(&files), Ok(Some(one)), "{files:?}");
        }
    }

    #[test]
    fn the_first_start_and_damage_are_told_apart() {
        assert_eq!(Identity::restore(&[None, None, None, None]), Ok(None));
        let one = identity(1);
        let [id, _, copy, _] = kept(&one);
        for bad in [
            // An id without its secret, torn copies, zeros.
            [id.clone(), None, None, None],
            [None, None, copy.clone().map(|text| text[..73].to_owned()), None],
            [None, None, None, Some("\0".repeat(74))],
            [Some(NodeId::default().to_string()), Some(NodeId::default().to_string()), None, None],
            [Some(String::new()), Some(String::new()), None, None],
        ] {
            assert_eq!(Identity::restore(&bad), Err(Damaged), "{bad:?}");
        }
    }

    #[test]
    fn a_node_of_nomad_is_taken_over() {
        let (old, nomads) = (identity(1), identity(2));
        let [_, _, a, b] = kept(&old);
        let files = [Some(format!("{}\n", nomads.id)), Some(nomads.secret.text()), a, b];
        assert_eq!(Identity::restore(&files), Ok(Some(nomads)));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let one = identity(1);
        assert_ne!(one.id.0, one.secret.0);
        assert!(!format!("{one:?}").contains(&one.secret.text()));
        assert_eq!(one.files()[2].len(), 74);
    }
}
