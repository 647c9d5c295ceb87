//! `pointsman config seal-key | seal`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::Zeroizing;

use pointsman_config::seal::{PrivateKey, PublicKey};
use pointsman_config::secret::{MAX_SECRET_BYTES, Secret};
use pointsman_config::{self as config, Env};

/// For whom a secret is sealed.
#[derive(Debug, clap::Args)]
pub struct SealArgs {
    /// The public key (seal-public:...) of the proxy that will open it [default: that of the private key which the
    /// configuration here would use].
    #[arg(long, value_name = "PUBLIC_KEY")]
    to: Option<String>,
    /// Without --to, the configuration whose [secrets] says where the private key is [default: ./pointsman.toml where it
    /// exists].
    #[arg(long, short, env = "POINTSMAN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Secrets that were typed here all the same: taken in only to be refused without being repeated.
    #[arg(hide = true)]
    typed: Vec<String>,
}

/// Source of the secret to seal.
struct Input<'a> {
    text: &'a mut dyn Read,
    /// Somebody sits there and wants to know what is expected.
    is_terminal: bool,
}

/// Makes a pair. The private key goes to `file`, which must not be there yet, else to `out`. Exit 1: it could not be written.
pub(super) fn make_key(file: Option<&Path>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let key = PrivateKey::generate();
    let Some(file) = file else {
        writeln!(out, "POINTSMAN_SEAL_KEY={}", *key.to_text())?;
        writeln!(err, "This is the private key: put it into the environment of the proxy, and nowhere else.")?;
        how_to_seal(&key.public(), err)?;
        return Ok(ExitCode::SUCCESS);
    };
    if let Err(error) = write_private(file, &key) {
        let shown = file.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => writeln!(
                err,
                "error: {shown} is there already; a key that is overwritten opens nothing any more\n  help: name another file"
            )?,
            _ => writeln!(err, "error: cannot write {shown}: {error}\n  help: name a file in a folder of yours")?,
        }
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "The private key is in {}, for its owner alone. In pointsman.toml:", file.display())?;
    writeln!(out, "  [secrets]\n  key = \"file:{}\"", fs::canonicalize(file)?.display())?;
    how_to_seal(&key.public(), out)?;
    Ok(ExitCode::SUCCESS)
}

fn how_to_seal(public: &PublicKey, to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "The public key, which anybody may know, seals a secret from standard input:")?;
    writeln!(to, "  pointsman config seal --to {public}")
}

/// Never over another file, and never readable by others, not even for a moment.
fn write_private(path: &Path, key: &PrivateKey) -> io::Result<()> {
    const OWNER_ALONE: u32 = 0o600;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(path)?;
    let written = write_line(&mut file, key);
    if written.is_err() {
        // Ours, and no key.
        let _ = fs::remove_file(path);
    }
    written
}

fn write_line(file: &mut File, key: &PrivateKey) -> io::Result<()> {
    file.write_all(key.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Seals what comes on standard input. Exit 1: there is no key, or no secret; 2: what was typed is not what is wanted.
pub(super) fn run(args: &SealArgs, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let stdin = io::stdin();
    let is_terminal = stdin.is_terminal();
    seal(args, env, Input { text: &mut stdin.lock(), is_terminal }, out, err)
}

fn seal(
    args: &SealArgs,
    env: &dyn Env,
    input: Input<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    if !args.typed.is_empty() {
        writeln!(err, "error: a secret on the command line is seen by others, and kept by the shell")?;
        writeln!(err, "  help: give it on standard input: pointsman config seal < FILE")?;
        return Ok(ExitCode::from(2));
    }
    let public = match args.to.as_deref().map(PublicKey::parse) {
        Some(Ok(public)) => public,
        Some(Err(error)) => {
            writeln!(err, "error: what --to names {error}")?;
            writeln!(err, "  help: give the seal-public:... that `pointsman config seal-key` printed")?;
            return Ok(ExitCode::from(2));
        }
        None => match config::seal_key(args.config.as_deref(), env) {
            Ok(key) => key.public(),
            Err(error) => {
                error.diagnostics.iter().try_for_each(|problem| writeln!(err, "{problem}"))?;
                writeln!(err, "  or name the public key: pointsman config seal --to PUBLIC_KEY")?;
                return Ok(ExitCode::FAILURE);
            }
        },
    };
    if input.is_terminal {
        writeln!(
            err,
            "Type the secret, Enter, and Ctrl-D. (It shows here; `pointsman config seal < FILE` shows nothing.)"
        )?;
    }
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + LINE_END.len()));
    // One byte more than is taken, so that what is too long is seen to be.
    input.text.take((MAX_SECRET_BYTES + LINE_END.len() + 1) as u64).read_to_end(&mut secret)?;
    let secret = secret.strip_suffix(b"\n").map_or(&secret[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
    if let Err(unusable) = Secret::for_header(secret) {
        writeln!(err, "error: the secret on standard input {unusable}")?;
        writeln!(err, "  help: one line of printable ASCII is expected, as it would stand in a header")?;
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "{}", public.seal(secret))?;
    Ok(ExitCode::SUCCESS)
}

/// Characters at the end of a secret's line that do not belong to it.
const LINE_END: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use pointsman_config::seal::Sealed;

    fn sealed(args: SealArgs, env: &dyn Env, text: &[u8], is_terminal: bool) -> (ExitCode, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let input = Input { text: &mut &text[..], is_terminal };
        let code = seal(&args, env, input, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn to(key: &str) -> SealArgs {
        SealArgs { to: Some(key.to_owned()), config: None, typed: Vec::new() }
    }

    fn by(config: Option<PathBuf>) -> SealArgs {
        SealArgs { to: None, config, typed: Vec::new() }
    }

    fn opened(key: &PrivateKey, text: &str) -> String {
        let secret = key.open(&Sealed::parse(text).unwrap()).unwrap();
        String::from_utf8(secret.to_vec()).unwrap()
    }

    #[test]
    fn a_line_is_sealed_without_its_end() {
        let key = PrivateKey::generate();
        for (text, secret) in
            [(&b"sk-1"[..], "sk-1"), (b"sk-1\n", "sk-1"), (b"sk-1\r\n", "sk-1"), (b" sk-1 \n", " sk-1 ")]
        {
            let (code, out, err) = sealed(to(&key.public().to_string()), &[], text, false);
            assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
            assert!(out.starts_with("sealed:") && out.lines().count() == 1, "{out}");
            assert_eq!(opened(&key, out.trim_end()), secret);
        }
        let longest = vec![b'k'; MAX_SECRET_BYTES];
        let (code, out, _) = sealed(to(&key.public().to_string()), &[], &[&longest[..], b"\r\n"].concat(), false);
        assert_eq!((code, opened(&key, out.trim_end()).len()), (ExitCode::SUCCESS, MAX_SECRET_BYTES));
    }

    #[test]
    fn somebody_at_a_terminal_is_told_what_is_expected() {
        let public = PrivateKey::generate().public().to_string();
        let (code, out, err) = sealed(to(&public), &[], b"sk-1\n", true);
        assert!(code == ExitCode::SUCCESS && err.starts_with("Type the secret"), "{err}");
        assert!(out.starts_with("sealed:"), "{out}");
    }

    #[test]
    fn what_could_not_be_sent_is_not_sealed() {
        let public = PrivateKey::generate().public().to_string();
        let long = vec![b'k'; MAX_SECRET_BYTES + 1];
        for (text, words) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"one\ntwo\n", "a line break?"),
            ("clé".as_bytes(), "cannot stand in a header"),
            (&long, "is too long"),
            (&[&long[..], b"\r\n\n"].concat(), "is too long"),
        ] {
            let (code, out, err) = sealed(to(&public), &[], text, false);
            assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
            assert!(err.contains(words) && !err.contains("two"), "{err}");
        }
    }

    #[test]
    fn a_wrong_key_to_seal_for_is_wrong_usage_and_is_not_repeated() {
        let private = PrivateKey::generate().to_text();
        for (key, words) in [
            (private.as_str(), "is a private key, which is to be shown to nobody"),
            ("sk-live-1", "does not begin with `seal-public:`"),
            ("seal-public:AAAA", "is not of 32 bytes"),
            ("seal-public:!", "is not base64"),
        ] {
            let (code, out, err) = sealed(to(key), &[], b"sk-1", false);
            assert_eq!((code, out.as_str()), (ExitCode::from(2), ""));
            assert!(err.contains(words) && !err.contains(key), "{err}");
        }
        let typed = SealArgs { typed: vec!["sk-live-1".to_owned()], ..by(None) };
        let (code, out, err) = sealed(typed, &[], b"", false);
        assert_eq!((code, out.as_str()), (ExitCode::from(2), ""));
        assert!(err.contains("standard input") && !err.contains("sk-live-1"), "{err}");
    }

    #[test]
    fn without_a_key_named_it_is_the_configurations() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (of_file, of_env) = (PrivateKey::generate(), PrivateKey::generate());
        fs::write(path("key"), of_file.to_text().as_bytes()).unwrap();
        fs::write(path("p.toml"), "rpm = 1\n[secrets]\nkey = \"file:key\"\n").unwrap();
        fs::write(path("none.toml"), "[store]\n").unwrap();
        let (code, out, _) = sealed(by(Some(path("p.toml"))), &[], b"sk-1", false);
        assert_eq!(
            (code, opened(&of_file, out.trim_end()).as_str()),
            (ExitCode::SUCCESS, "sk-1"),
            "nothing else is judged"
        );
        let text = of_env.to_text();
        let env = [("POINTSMAN_SEAL_KEY", text.as_str())];
        let (code, out, _) = sealed(by(Some(path("none.toml"))), &env, b"sk-2", false);
        assert_eq!((code, opened(&of_env, out.trim_end()).as_str()), (ExitCode::SUCCESS, "sk-2"));
        let (code, out, err) = sealed(by(Some(path("none.toml"))), &[], b"sk-3", false);
        assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
        assert!(err.contains("POINTSMAN_SEAL_KEY") && err.contains("--to PUBLIC_KEY"), "{err}");
        let (code, _, err) = sealed(by(Some(path("gone.toml"))), &env, b"sk-3", false);
        assert!(code == ExitCode::FAILURE && err.contains("gone.toml"), "{err}");
    }

    #[test]
    fn a_key_in_a_file_is_its_owners_alone_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seal.key");
        let made = |file: &Path| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = make_key(Some(file), &mut out, &mut err).unwrap();
            (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        let (code, out, err) = made(&file);
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        let key = PrivateKey::parse(&text).unwrap();
        assert!(out.contains(&format!("config seal --to {}", key.public())) && !out.contains(text.trim()), "{out}");
        let (code, out, err) = made(&file);
        assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
        assert!(err.contains("seal.key is there already"), "{err}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        let (code, _, err) = made(&folder.path().join("no/such/seal.key"));
        assert!(code == ExitCode::FAILURE && err.contains("cannot write"), "{err}");
    }

    #[test]
    fn a_key_for_the_environment_is_all_of_standard_output() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(make_key(None, &mut out, &mut err).unwrap(), ExitCode::SUCCESS);
        let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
        let key = PrivateKey::parse(out.strip_prefix("POINTSMAN_SEAL_KEY=").unwrap()).unwrap();
        assert!(err.contains(&format!("pointsman config seal --to {}\n", key.public())), "{err}");
        assert!(!err.contains(key.to_text().as_str()));
    }
}
