//! The commands of a page of documentation, run as they are written, against a real server before simulated providers.
//!
//! What a reader would do by hand is done here: providers' addresses and keys come from the environment, the admin listener's
//! address is the real one, a placeholder such as REQUEST_ID is filled in. Everything else is the page's own words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{Upstream, chat, status, upstream};

/// The address that pages give for the admin listener.
const ADMIN: &str = "127.0.0.1:9901";

/// Requests of the tour: a backtest needs some.
const REQUESTS: usize = 120;

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its language: `sh`, `toml`, `diff`, ...
    pub language: String,
    /// True for a block that has to fail.
    pub fails: bool,
    /// The text before it, as far as the block before.
    pub before: String,
    /// Text of the block.
    pub text: String,
}

impl Block {
    /// The file that the text before it names last, where that ends with a colon: "In `patience/src/lib.rs`:".
    fn file(&self) -> Option<&str> {
        let before = self.before.trim_end().strip_suffix(':')?;
        let paragraph = before.rsplit("\n\n").next()?;
        paragraph.split('`').skip(1).step_by(2).filter(|word| word.contains('.') && !word.contains(' ')).last()
    }
}

/// The blocks of a page, in their order.
pub fn blocks(page: &str) -> Vec<Block> {
    let (mut all, mut before, mut open) = (Vec::new(), String::new(), None::<Block>);
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace();
                open = Some(Block {
                    language: words.next().unwrap_or_default().to_owned(),
                    fails: words.any(|word| word == "fails"),
                    before: std::mem::take(&mut before),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => all.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => before.extend([line, "\n"]),
        }
    }
    all
}

/// Environment for following a guide.
pub struct Guide {
    /// The real binary.
    pub pointsman: PathBuf,
    /// Stands in for what `policy build` makes, where the language's tools are not there.
    pub prebuilt: Option<PathBuf>,
    /// Words of the page, and what stands for them.
    pub instead: Vec<(String, String)>,
}

/// A walk under way: a folder, providers, and a server once there is a configuration.
pub struct Walk {
    guide: Guide,
    folder: TempDir,
    tools: TempDir,
    environment: BTreeMap<String, String>,
    filled_in: Vec<(String, String)>,
    _providers: [Upstream; 2],
    server: Option<(Child, String)>,
}

impl Walk {
    /// In an empty folder.
    pub async fn begin(guide: Guide) -> Self {
        let free = upstream().reply(status(429).retry_after(1)).then(chat("from the free one")).start().await;
        let paid = upstream().reply(chat("from the paid one")).start().await;
        let [folder, tools] = [TempDir::new(), TempDir::new()].map(|folder| folder.expect("a folder can be made"));
        let mut environment = BTreeMap::new();
        for (name, value) in [
            ("NVIDIA_API_KEY", "nvapi-of-the-test"),
            ("OPENAI_API_KEY", "sk-of-the-test"),
            ("POINTSMAN__BACKEND__NVIDIA_1__BASE_URL", &free.url()),
            ("POINTSMAN__BACKEND__PAID_1__BASE_URL", &paid.url()),
            // More than its 40 are asked of it, and nobody waits for minutes.
            ("POINTSMAN__BACKEND__NVIDIA_1__RPM", "60000"),
            ("POINTSMAN__SERVER__LISTEN", "127.0.0.1:0"),
            ("POINTSMAN__ADMIN__LISTEN", "127.0.0.1:0"),
            // A debug build on a busy machine is slower than what readers run.
            ("POINTSMAN__POLICY__DEADLINE_MS", "90"),
            ("NO_PROXY", "127.0.0.1"),
        ] {
            environment.insert(name.to_owned(), value.to_owned());
        }
        std::fs::write(folder.path().join("nvidia-key.txt"), "nvapi-of-the-test\n").expect("a file can be written");
        let walk =
            Self { guide, folder, tools, environment, filled_in: Vec::new(), _providers: [free, paid], server: None };
        walk.make_tools();
        walk
    }

    /// The folder in which the page's commands run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Follows a block; returns the output of its commands, or the error.
    ///
    /// # Errors
    /// A command does not end as the page has it, or an edit does not fit.
    pub async fn follow(&mut self, block: &Block) -> Result<String, String> {
        match block.language.as_str() {
            "sh" => self.run(block).await,
            "toml" => {
                self.write(block.file().unwrap_or("pointsman.toml"), &block.text)?;
                self.wait_for_the_shadow(block).await.map(|()| String::new())
            }
            "diff" => self.edit(block).map(|()| String::new()),
            _ => Ok(String::new()),
        }
    }

    /// Starts the server with the pointsman.toml that is there.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn serve(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.guide.pointsman);
        command.arg("serve").current_dir(self.folder()).envs(&self.environment).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (mut said, mut addresses) = (String::new(), None);
        while let Ok(Some(line)) = lines.next_line().await {
            let fields = serde_json::from_str::<Json>(&line).unwrap_or_default();
            let field = |name: &str| {
                [&fields[name], &fields["fields"][name]].into_iter().find_map(Json::as_str).map(str::to_owned)
            };
            if field("message").as_deref() == Some("listening") {
                addresses = field("addr").zip(field("admin_addr"));
                break;
            }
            said.extend([&line, "\n"]);
        }
        // What it goes on to say is read, so that it never waits to say it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (address, admin) = addresses.ok_or_else(|| format!("the server did not come up:\n{said}"))?;
        self.filled_in.push((ADMIN.to_owned(), admin.clone()));
        self.environment.insert("POINTSMAN_TOUR_ADMIN".to_owned(), format!("http://{admin}"));
        self.server = Some((child, address));
        Ok(())
    }

    /// Asks the server for something, as an SDK would, often enough for a backtest; the last request's id stands for REQUEST_ID.
    ///
    /// # Errors
    /// An answer is not good.
    pub async fn ask(&mut self, model: &str) -> Result<String, String> {
        let (_, address) = self.server.as_ref().ok_or("there is no server")?;
        let client = crate::client::http_client();
        let body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).to_string();
        let mut id = String::new();
        for _ in 0..REQUESTS {
            let request = client.post(format!("http://{address}/v1/chat/completions")).body(body.clone());
            let answer = request.header("content-type", "application/json").send().await.map_err(|e| e.to_string())?;
            let header = answer.headers().get("x-request-id");
            id = header.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            if !answer.status().is_success() {
                return Err(format!("{model} got {}: {}", answer.status(), answer.text().await.unwrap_or_default()));
            }
        }
        self.filled_in.push(("REQUEST_ID".to_owned(), id.clone()));
        self.wait_for_the_record(&id).await?;
        Ok(id)
    }

    /// The record is written a moment after the answer.
    async fn wait_for_the_record(&self, id: &str) -> Result<(), String> {
        let check = Block {
            language: "sh".to_owned(),
            fails: false,
            before: String::new(),
            text: format!(
                "for i in $(seq 200); do pointsman explain {id} > /dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1"
            ),
        };
        self.shell(&check.text).await.map(|_| ())
    }

    /// A reader takes longer than the server to see a changed file.
    async fn wait_for_the_shadow(&self, block: &Block) -> Result<(), String> {
        if self.server.is_none() || !block.text.contains("[policy.shadow]") {
            return Ok(());
        }
        let shadow = "curl -s \"$POINTSMAN_TOUR_ADMIN/api/policy/shadow\" > /dev/null 2>&1";
        let told = self.shell(&format!("for i in $(seq 200); do {shadow} && exit 0; sleep 0.1; done; exit 1")).await;
        told.map(|_| ()).map_err(|_| "the shadow is not taken while the server runs".to_owned())
    }

    async fn run(&mut self, block: &Block) -> Result<String, String> {
        let replace = |text: &str, pairs: &[(String, String)]| {
            pairs.iter().fold(text.to_owned(), |text, (a, b)| text.replace(a, b))
        };
        let mut all = String::new();
        for command in commands(&block.text) {
            let text = replace(&replace(&command, &self.guide.instead), &self.filled_in);
            let printed = match (self.shell(&text).await, block.fails) {
                (Ok(printed), false) | (Err(printed), true) => printed,
                (Ok(printed), true) => return Err(format!("this was to fail, and did not:\n{text}\n{printed}")),
                (Err(printed), false) => return Err(format!("this failed:\n{text}\n{printed}")),
            };
            let public = printed.split_whitespace().find(|word| word.starts_with("seal-public:") && word.len() > 20);
            if let Some(public) = public {
                self.filled_in.push(("seal-public:...".to_owned(), public.to_owned()));
            }
            self.check_queries()?;
            all += &printed;
        }
        Ok(all)
    }

    /// Runs commands; returns their output, or an error when one of them failed.
    async fn shell(&self, text: &str) -> Result<String, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", text]).current_dir(self.folder()).envs(&self.environment);
        command.env("PATH", format!("{}:{path}", self.tools.path().display()));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let done = command.output().await.map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        if done.status.success() { Ok(printed) } else { Err(printed) }
    }

    /// Commands of the page that need help: they stand before the real ones on the PATH.
    fn make_tools(&self) {
        let pointsman = self.guide.pointsman.display();
        let prebuilt = match &self.guide.prebuilt {
            Some(file) => format!(
                "if [ \"$1 $2\" = 'policy build' ]; then cp '{}' \"$3/policy.wasm\"; exit; fi\n",
                file.display()
            ),
            None => String::new(),
        };
        let own =
            "if [ \"$1 $2\" = 'policy promote' ]; then exec \"$real\" \"$@\" --admin \"$POINTSMAN_TOUR_ADMIN\"; fi\n";
        let tools = [
            ("pointsman", format!("real='{pointsman}'\n{prebuilt}{own}exec \"$real\" \"$@\"\n")),
            // An answer that is no success is a failure, and a stream of events never ends.
            (
                "curl",
                "real=$(PATH=${PATH#*:} command -v curl)\n\
                 case \"$*\" in */api/events*) timeout 2 \"$real\" --fail-with-body \"$@\" || [ $? = 124 ]; exit;; esac\n\
                 exec \"$real\" --fail-with-body \"$@\"\n"
                    .to_owned(),
            ),
            // Asked by the test itself, so that the tool need not be there.
            ("sqlite3", "printf '%s\\n' \"$1\" \"$2\" > sqlite3.asked\n".to_owned()),
        ];
        for (name, text) in tools {
            let file = self.tools.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{text}").replace("#!/bin/sh", "#!/usr/bin/env bash"))
                .expect("a file can be written");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let may_run = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(file, may_run).expect("a file can be made executable");
            }
        }
    }

    /// The queries that the page puts to the store.
    fn check_queries(&self) -> Result<(), String> {
        let asked = self.folder().join("sqlite3.asked");
        let Ok(text) = std::fs::read_to_string(&asked) else { return Ok(()) };
        std::fs::remove_file(&asked).map_err(|error| error.to_string())?;
        let (store, query) = text.split_once('\n').ok_or("sqlite3 was asked nothing")?;
        let open = rusqlite::Connection::open(self.folder().join(store)).map_err(|error| error.to_string())?;
        let mut query = open.prepare(query.trim()).map_err(|error| format!("{query}: {error}"))?;
        let mut rows = query.query([]).map_err(|error| error.to_string())?;
        let row = rows.next().map_err(|error| error.to_string())?;
        row.map(|_| ()).ok_or_else(|| "the page's query finds nothing".to_owned())
    }

    /// A new file, or more of one that is there.
    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let file = self.folder().join(file);
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(&file, before + text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn edit(&self, block: &Block) -> Result<(), String> {
        let name = block.file();
        let Some(name) = name.map(str::to_owned).or_else(|| self.edited()) else {
            return Err(format!("which file is to be changed?\n{}", block.text));
        };
        let file = self.folder().join(&name);
        let before = std::fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
        let after = patched(&before, &block.text).map_err(|why| format!("{name}: {why}\n{}", block.text))?;
        std::fs::write(&file, after).map_err(|error| format!("{name}: {error}"))?;
        std::fs::write(self.tools.path().join("edited"), name).map_err(|error| error.to_string())
    }

    /// The file that was changed last: several changes of one file may follow each other.
    fn edited(&self) -> Option<String> {
        std::fs::read_to_string(self.tools.path().join("edited")).ok()
    }
}

/// The commands of a block: a line each, or several that end with a backslash.
fn commands(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    whole.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// A text with a change made: the lines that begin with a space or `-` stand there once, and those with a space or `+` come instead.
pub(crate) fn patched(text: &str, diff: &str) -> Result<String, String> {
    let side = |mark: char| -> String {
        let lines = diff.lines().filter(|line| line.starts_with([' ', mark]));
        lines.map(|line| format!("{}\n", &line[1..])).collect()
    };
    let (old, new) = (side('-'), side('+'));
    match text.matches(&old).count() {
        1 => Ok(text.replacen(&old, &new, 1)),
        0 => Err("what is to be changed is not there".to_owned()),
        several => Err(format!("what is to be changed is there {several} times")),
    }
}

/// The README's tour, steps 1 to 5; all that its commands printed.
///
/// # Errors
/// The first step that does not go as it is written, with what was said.
pub async fn tour(walk: &mut Walk, readme: &str) -> Result<String, String> {
    let (_, tour) = readme.split_once("\n## A two-minute tour\n").ok_or("there is no tour")?;
    let (tour, _) = tour.split_once("\n**6.").ok_or("the tour has no sixth step")?;
    let mut told = String::new();
    for step in tour.split("\n**").skip(1) {
        let all = blocks(step);
        for block in &all {
            told += &walk.follow(block).await?;
        }
        match step.split_once('.').map(|(number, _)| number) {
            Some("1") => {
                let check = "pointsman config check\n".to_owned();
                let check = Block { language: "sh".to_owned(), fails: false, before: String::new(), text: check };
                told += &walk.follow(&check).await?;
                walk.serve().await?;
            }
            Some("2") => {
                let model = step
                    .split_once("model=\"")
                    .and_then(|(_, rest)| rest.split_once('"'))
                    .ok_or("step 2 names no model")?;
                walk.ask(model.0).await?;
            }
            _ => {}
        }
    }
    Ok(told)
}
