//! `sealed:...` and the private key that opens it: `[secrets] key`, looked for only when there is something to open.

use std::rc::Rc;

use pointsman_engine::plain_file;
use zeroize::Zeroizing;

use super::Check;
use crate::defaults;
use crate::diagnostic::Diagnostic;
use crate::raw::RawSecrets;
use crate::seal::{KeyError, PRIVATE, PrivateKey, Sealed, SealedError};
use crate::tree::Path;

/// More bytes are no key, and white space around it.
const MAX_KEY_FILE_BYTES: u64 = 4 * 1024;

/// The private key of a configuration, as far as it is known.
pub(super) enum SealKey {
    /// Nothing sealed was met yet. It is to be found there.
    NotLookedFor(String),
    /// It was needed and found.
    Found(Rc<PrivateKey>),
    /// It is complained of already: once is enough for all that is sealed.
    Refused,
}

/// A sealed value that needs the key: its path, and the owner named in messages.
pub(super) type Needed<'a> = (&'a Path, &'a str);

impl Check<'_, '_> {
    /// Judges what `[secrets]` says, and looks at nothing else.
    pub(super) fn secrets(&mut self, raw: RawSecrets) {
        let at = key_path();
        let source = raw.key.unwrap_or_else(|| defaults::SEAL_KEY.to_owned());
        self.seal_key = if self.tree.refused(&at) || self.tree.refused(&Path::of("secrets")) {
            SealKey::Refused
        } else if source.starts_with("env:") || source.starts_with("file:") {
            SealKey::NotLookedFor(source)
        } else {
            let (what, help) = if source.starts_with(PRIVATE) {
                ("holds the private key itself: who reads this could open every secret", "take it out, and write")
            } else {
                ("must say where the private key is", "write")
            };
            self.error(&at, format!("`[secrets] key` {what}"))
                .help(format!("{help} \"{}\" or \"file:PATH\"", defaults::SEAL_KEY));
            SealKey::Refused
        };
    }

    /// Opens what stands at `at`; `owner` is who needs it.
    pub(super) fn unsealed(&mut self, at: &Path, text: &str, owner: &str) -> Option<Zeroizing<Vec<u8>>> {
        // Read first: a text that was cut is told even where the key is not.
        let sealed = match Sealed::parse(text) {
            Ok(sealed) => sealed,
            Err(error) => return self.not_opened(at, owner, error, None),
        };
        let key = self.seal_key(Some((at, owner)))?;
        key.open(&sealed).map_or_else(|error| self.not_opened(at, owner, error, Some(&key)), Some)
    }

    fn not_opened<T>(&mut self, at: &Path, owner: &str, error: SealedError, key: Option<&PrivateKey>) -> Option<T> {
        let help = match (error, key) {
            (SealedError::NotForThisKey, Some(key)) => {
                format!("seal it for the key that is here: pointsman config seal --to {}", key.public())
            }
            (SealedError::NotBase64 | SealedError::TooShort | SealedError::NotForThisKey, _) => {
                "copy all of what `pointsman config seal` prints".to_owned()
            }
        };
        self.error(at, format!("{owner}: the sealed secret {error}")).help(help);
        None
    }

    /// The private key; none when it is not to be had, which is told once.
    pub(super) fn seal_key(&mut self, needed: Option<Needed<'_>>) -> Option<Rc<PrivateKey>> {
        let source = match &self.seal_key {
            SealKey::Found(key) => return Some(key.clone()),
            SealKey::Refused => return None,
            SealKey::NotLookedFor(source) => source.clone(),
        };
        let found = match source.split_once(':') {
            Some(("file", path)) => self.key_of_file(path, needed),
            Some((_, name)) => self.key_of_variable(name, needed),
            None => None,
        };
        self.seal_key = found.clone().map_or(SealKey::Refused, SealKey::Found);
        found
    }

    fn key_of_variable(&mut self, name: &str, needed: Option<Needed<'_>>) -> Option<Rc<PrivateKey>> {
        let Some(text) = self.env.var(name).map(Zeroizing::new) else {
            let message = format!("the environment variable {name}, which should hold the private key, is not set");
            self.no_key(needed, &message).help(format!(
                "export {name}={PRIVATE}..., or write [secrets] key = \"file:PATH\"; `pointsman config seal-key` makes a pair"
            ));
            return None;
        };
        self.parsed_key(&text, &format!("what the environment variable {name} holds"), needed)
    }

    fn key_of_file(&mut self, path: &str, needed: Option<Needed<'_>>) -> Option<Rc<PrivateKey>> {
        let path = self.file(path);
        self.files.insert(path.clone());
        let text = match plain_file::read_text(&path, MAX_KEY_FILE_BYTES) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => {
                let message = format!("cannot read the private key from {}: {error}", path.display());
                self.no_key(needed, &message).help(
                    "`pointsman config seal-key --out FILE` makes a pair; relative paths start at the configuration's folder",
                );
                return None;
            }
        };
        self.parsed_key(&text, &format!("what {} holds", path.display()), needed)
    }

    fn parsed_key(&mut self, text: &str, what: &str, needed: Option<Needed<'_>>) -> Option<Rc<PrivateKey>> {
        let error = match PrivateKey::parse(text) {
            Ok(key) => return Some(Rc::new(key)),
            Err(error) => error,
        };
        let help = match error {
            KeyError::IsPublic | KeyError::IsPrivate => {
                format!("put the other half of the pair there, which begins with `{PRIVATE}`")
            }
            KeyError::NoPrefix { .. } | KeyError::NotBase64 { .. } | KeyError::Length => {
                format!("nothing but {PRIVATE}... may stand there, as `pointsman config seal-key` wrote it")
            }
        };
        self.no_key(needed, &format!("{what} is not the private key: it {error}")).help(help);
        None
    }

    /// Points to where the key is said to be, and to the first who needs it; else to that alone.
    fn no_key(&mut self, needed: Option<Needed<'_>>, message: &str) -> &mut Diagnostic {
        let said = self.tree.find(&key_path()).map(|node| &node.site);
        let sealed = needed.map(|(at, _)| self.tree.nearest(at));
        let message = match needed {
            Some((_, owner)) => format!("{owner} has a sealed secret, but {message}"),
            None => message.to_owned(),
        };
        let related = said.and(sealed).map(|site| (self.report.place(site), "sealed here".to_owned()));
        let problem = self.report.error(said.or(sealed), message);
        problem.related = related;
        problem
    }
}

fn key_path() -> Path {
    Path::of("secrets").key("key")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::seal::{PRIVATE, PrivateKey, SEALED};
    use crate::{Env, Loaded, parse};

    const ONE: &str = "[[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";

    /// A key pair, and texts as they stand in the environment or a file.
    struct Pair {
        key: PrivateKey,
        private: String,
        public: String,
    }

    fn pair() -> Pair {
        let key = PrivateKey::generate();
        Pair { private: key.to_text().to_string(), public: key.public().to_string(), key }
    }

    impl Pair {
        fn seal(&self, secret: &[u8]) -> String {
            self.key.public().seal(secret).to_string()
        }

        fn env(&self) -> [(&str, &str); 1] {
            [("POINTSMAN_SEAL_KEY", &self.private)]
        }
    }

    fn checked(text: &str, env: &dyn Env) -> Loaded {
        parse(text, "p.toml", env).unwrap_or_else(|error| panic!("{error}"))
    }

    /// It is refused for one reason, told with these words, and shows nothing of a box or a private key.
    fn refused(text: &str, env: &dyn Env, words: &[&str]) -> String {
        let told = parse(text, "p.toml", env).expect_err("this must be refused").to_string();
        for word in words {
            assert!(told.contains(word), "no {word:?} in:\n{told}");
        }
        assert!(told.ends_with(": 1 problem"), "{told}");
        for mark in [SEALED, PRIVATE] {
            let values = text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            for value in values.filter(|value| value.len() >= 8) {
                assert!(!told.contains(&value[..8]), "{value} is shown:\n{told}");
            }
        }
        told
    }

    fn api_key(text: &str) -> String {
        format!("{ONE}api_key = \"{text}\"\n")
    }

    #[test]
    fn whatever_takes_a_secret_takes_a_sealed_one() {
        let pair = pair();
        let [api_key, token, header, client] = [&b"sk-1"[..], b"t0ken", b"acme", b"alice"].map(|s| pair.seal(s));
        let text = format!(
            "{ONE}api_key = \"{api_key}\"\nheaders = {{ X-Team = \"{header}\" }}\n[admin]\ntoken = \"{token}\"\n\
             [[client]]\nname = \"c\"\nkey = \"{client}\"\n"
        );
        let Loaded { config, warnings, .. } = checked(&text, &pair.env());
        assert_eq!(warnings, [], "a sealed secret may stand in a file");
        let backend = &config.backends[0];
        assert_eq!(backend.api_key.as_ref().unwrap().expose(), "sk-1");
        assert_eq!(backend.headers[0].1, "acme");
        assert!(backend.headers[0].1.is_sensitive());
        assert_eq!(config.admin.token.as_ref().unwrap().expose(), "t0ken");
        assert_eq!((config.client_of("alice"), config.client_of(&client)), (Some(0), None));
        let shown = format!("{config:?}");
        assert!(!shown.contains("sk-1") && !shown.contains(&api_key) && !shown.contains("acme"), "{shown}");
    }

    #[test]
    fn the_key_is_where_secrets_says_or_the_environment() {
        let pair = pair();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("seal.key"), format!("{}\n", pair.private)).unwrap();
        let file = folder.path().join("p.toml");
        let text = api_key(&pair.seal(b"sk-1"));
        let key_of = |text: &str, env: &dyn Env| {
            let loaded = parse(text, &file.display().to_string(), env).unwrap_or_else(|error| panic!("{error}"));
            loaded.config.backends[0].api_key.as_ref().unwrap().expose().to_owned()
        };
        assert_eq!(key_of(&text, &pair.env()), "sk-1");
        assert_eq!(key_of(&format!("[secrets]\n{text}"), &pair.env()), "sk-1");
        assert_eq!(key_of(&format!("[secrets]\nkey = \"file:seal.key\"\n{text}"), &[]), "sk-1");
        assert_eq!(key_of(&format!("[secrets]\nkey = \"env:K\"\n{text}"), &[("K", pair.private.as_str())]), "sk-1");
        assert_eq!(key_of(&text, &[("POINTSMAN__SECRETS__KEY", "file:seal.key")]), "sk-1");
        let overlaid = pair.seal(b"sk-2");
        let env = [pair.env()[0], ("POINTSMAN__BACKEND__A__API_KEY", &overlaid)];
        assert_eq!(key_of(&text, &env), "sk-2");
    }

    #[test]
    fn no_key_is_looked_for_when_nothing_is_sealed() {
        checked(&format!("[secrets]\nkey = \"file:/nowhere\"\n{}", api_key("env:K")), &[("K", "k")]);
        checked(&api_key("env:K"), &[("K", "k"), ("POINTSMAN_SEAL_KEY", "nonsense")]);
    }

    #[test]
    fn a_key_that_is_not_there_is_named_once_with_the_way_out() {
        let pair = pair();
        let sealed = api_key(&pair.seal(b"sk-1"));
        let way_out = "export POINTSMAN_SEAL_KEY=seal-private:..., or write [secrets] key = \"file:PATH\"";
        let words = "backend `a` has a sealed secret, but the environment variable POINTSMAN_SEAL_KEY, which should hold the \
                     private key, is not set";
        refused(&sealed, &[], &[words, "--> p.toml:4:11", "4 | api_key = \"sealed:***", way_out, "config seal-key"]);
        let two = format!("{sealed}headers = {{ X-Team = \"{}\" }}\n", pair.seal(b"acme"));
        refused(&two, &[], &["POINTSMAN_SEAL_KEY", ":4:11"]);
        let said = format!("[secrets]\nkey = \"file:/nowhere/seal.key\"\n{sealed}");
        let words = ["cannot read the private key from /nowhere/seal.key", "--> p.toml:2:7", "::: p.toml:6:11"];
        refused(&said, &[], &[&words[..], &["^ sealed here", "config seal-key --out FILE"]].concat());
        let overlaid = [("POINTSMAN__BACKEND__A__API_KEY", &*pair.seal(b"sk-1"))];
        refused(ONE, &overlaid, &["POINTSMAN_SEAL_KEY", "environment variable POINTSMAN__BACKEND__A__API_KEY"]);
    }

    #[test]
    fn what_is_no_private_key_is_said_to_be_none() {
        let pair = pair();
        let sealed = api_key(&pair.seal(b"sk-1"));
        for (key, words) in [
            (pair.public.as_str(), ["it is a public key, which seals and does not open", "the other half"]),
            ("nonsense", ["it does not begin with `seal-private:`", "nothing but seal-private:..."]),
            ("seal-private:n o", ["it is not base64 behind `seal-private:`", "nothing but"]),
            (
                &pair.private[..40],
                ["it is not of 32 bytes: a part of it is missing", "`pointsman config seal-key` wrote it"],
            ),
        ] {
            let told = refused(&sealed, &[("POINTSMAN_SEAL_KEY", key)], &words);
            assert!(
                told.contains("what the environment variable POINTSMAN_SEAL_KEY holds is not the private key"),
                "{told}"
            );
            assert!(!told.contains(key), "{told}");
        }
    }

    #[test]
    fn secrets_says_where_the_key_is_and_does_not_hold_it() {
        let pair = pair();
        let sealed = api_key(&pair.seal(b"sk-1"));
        for (key, words) in [
            (pair.private.as_str(), ["holds the private key itself", "take it out, and write"]),
            (pair.public.as_str(), ["must say where the private key is", "\"file:PATH\""]),
            (&pair.seal(b"x"), ["must say where", "\"env:POINTSMAN_SEAL_KEY\""]),
            ("", ["must say where", "p.toml:2:7"]),
        ] {
            refused(&format!("[secrets]\nkey = \"{key}\"\n{sealed}"), &pair.env(), &words);
            refused(&format!("[secrets]\nkey = \"{key}\"\n{ONE}"), &pair.env(), &words);
        }
        refused(&format!("[secrets]\nkey = 5\n{sealed}"), &pair.env(), &["`key` must be text", ":2:7"]);
        refused(&format!("secrets = 5\n{sealed}"), &pair.env(), &["`secrets` must be a table"]);
        refused(
            &format!("[secrets]\nkeys = \"env:K\"\n{ONE}"),
            &[],
            &["unknown key `keys`", "[secrets]", "write `key`"],
        );
        let env = [("POINTSMAN__SECRETS__KEY", pair.private.as_str())];
        refused(ONE, &env, &["holds the private key itself", "environment variable POINTSMAN__SECRETS__KEY"]);
    }

    #[test]
    fn what_cannot_be_opened_says_whose_it_is_and_why() {
        let (pair, other) = (pair(), self::pair());
        let whole = pair.seal(b"sk-1");
        let seal_again = format!("pointsman config seal --to {}", pair.public);
        for (text, words) in [
            (other.seal(b"sk-1"), ["was sealed for another key, or is damaged", seal_again.as_str()]),
            (whole[..60].to_owned(), ["is too short: a part of it is missing", "copy all of what"]),
            ("sealed:".to_owned(), ["is too short", "copy all of what"]),
            ("sealed:not-base64-at-all".to_owned(), ["is not base64 behind `sealed:`", "copy all of what"]),
        ] {
            let told = refused(&api_key(&text), &pair.env(), &words);
            assert!(told.contains("error: backend `a`: the sealed secret ") && told.contains("p.toml:4:11"), "{told}");
            let client = format!("{ONE}[[client]]\nname = \"c\"\nkey = \"{text}\"\n");
            refused(&client, &pair.env(), &["client `c`: the sealed secret", "p.toml:6:7", words[0]]);
        }
        refused(&api_key(&whole[..60]), &[], &["is too short"]);
    }

    #[test]
    fn what_was_opened_must_be_of_use_in_a_header() {
        let pair = pair();
        for (secret, why) in [
            (&b""[..], "the secret is empty"),
            (b"sk-1\nsk-2", "the secret has characters that cannot stand in a header"),
            (b"\xff\xfe", "the secret has characters that cannot stand in a header"),
            (&[b'k'; 17 * 1024], "the secret is too long"),
        ] {
            let told = refused(&api_key(&pair.seal(secret)), &pair.env(), &["backend `a`", why, ":4:11"]);
            assert!(!told.contains("sk-1"), "{told}");
        }
        let header = format!("{ONE}[backend.headers]\nX-Team = \"{}\"\n", pair.seal(b"a\nb"));
        refused(&header, &pair.env(), &["cannot stand in a header", "p.toml:5:10", "5 | X-Team = \"sealed:***"]);
    }

    #[test]
    fn a_reference_to_a_sealed_text_is_not_sent_as_a_key() {
        let pair = pair();
        let sealed = pair.seal(b"sk-1");
        let env = [pair.env()[0], ("K", &sealed)];
        let told = refused(&api_key("env:K"), &env, &["backend `a`: what is found there is itself sealed", ":4:11"]);
        assert!(!told.contains(&sealed), "{told}");
    }

    #[test]
    fn a_sealed_secret_counts_for_the_revision_only_as_one() {
        let pair = pair();
        let revision = |text: &str| checked(&api_key(text), &[pair.env()[0], ("K", "k")]).config.revision;
        let sealed = revision(&pair.seal(b"sk-1"));
        assert_eq!(sealed, revision(&pair.seal(b"sk-1")), "sealed again, it is another text");
        assert_eq!(sealed, revision(&pair.seal(b"sk-2")), "as with env:, the secret itself does not count");
        assert!(sealed != revision("env:K") && sealed != revision("sk-1"), "where it is kept does");
        let configs = [pair.seal(b"sk-1"), pair.seal(b"sk-1"), pair.seal(b"sk-2")];
        let [one, same, other] = configs.map(|text| checked(&api_key(&text), &pair.env()).config);
        assert!(one.is_same(&same) && !one.is_same(&other), "a reload takes another secret, and that alone");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn no_edit_of_a_value_makes_it_show(
            which in 0..3_usize,
            at in any::<prop::sample::Index>(),
            cut in 0..30_usize,
            new in "[\"'=.{}\\[\\]\n a-zA-Z0-9+/]{0,4}",
        ) {
            let pair = pair();
            let boxes = [pair.seal(b"sk-1-secret"), pair.seal(b"acme-secret"), pair.seal(b"alice-secret")];
            let mut written = boxes.clone().map(|sealed| format!("\"{sealed}\""));
            let at = at.index(written[which].len());
            let end = (at + cut).min(written[which].len());
            written[which].replace_range(at..end, &new);
            let [key, header, client] = written;
            let text = format!(
                "{ONE}api_key = {key}\n[backend.headers]\nX-Team = {header}\n[[client]]\nname = \"c\"\nkey = {client}\n"
            );
            let told = match parse(&text, "p.toml", &pair.env()) {
                Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
                Err(error) => error.to_string(),
            };
            // The middle of a box: an edit may have taken its ends.
            let middles = boxes.iter().map(|text| &text[text.len() / 2..text.len() / 2 + 12]);
            let secrets = ["sk-1-secret", "acme-secret", "alice-secret", &pair.private[PRIVATE.len()..]];
            for secret in secrets.into_iter().chain(middles) {
                prop_assert!(!told.contains(secret), "{secret} is shown:\n{text}\n{told}");
            }
        }
    }
}
