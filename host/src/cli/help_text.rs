//! Help as it is read on a terminal of any width: what the source breaks at its own width is one paragraph again.

use clap::Command;

/// The command line with the texts of all its commands in whole paragraphs.
pub(super) fn reflowed(command: Command) -> Command {
    let short = command.get_about().map(|text| reflow(&text.to_string()));
    let long = command.get_long_about().map(|text| reflow(&text.to_string()));
    let command = match short {
        Some(text) => command.about(text.trim_end_matches('.').to_owned()),
        None => command,
    };
    let command = match long {
        Some(text) => command.long_about(text),
        None => command,
    };
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, reflowed))
}

/// Joins the lines of each paragraph. What is indented is an example and stays a line, and exit codes begin one.
fn reflow(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let is_of_its_own = line.is_empty() || line.starts_with([' ', '\t']) || line.starts_with("Exit ");
        let last = out.rsplit('\n').next().unwrap_or_default();
        let follows_text = !last.is_empty() && !last.starts_with([' ', '\t']);
        if !out.is_empty() || is_of_its_own && line.is_empty() {
            out.push(if follows_text && !is_of_its_own { ' ' } else { '\n' });
        }
        out.push_str(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn paragraphs_are_whole_and_examples_stay_lines() {
        let text =
            "Say it.\n\nIt is said in two\nlines of text.\nExit 0: done; 1: not\ndone.\n\n  pointsman a\n  pointsman b";
        assert_eq!(
            reflow(text),
            "Say it.\n\nIt is said in two lines of text.\nExit 0: done; 1: not done.\n\n  pointsman a\n  pointsman b"
        );
    }

    /// Every command and all that is beneath it.
    fn all(command: &Command) -> Vec<Command> {
        let beneath = command.get_subcommands().flat_map(all);
        std::iter::once(command.clone()).chain(beneath).collect()
    }

    #[test]
    fn no_line_of_help_is_broken_but_by_the_terminal() {
        for command in all(&reflowed(crate::cli::Cli::command())) {
            let name = command.get_name().to_owned();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.contains('\n') && !about.ends_with('.') && !about.is_empty(), "{name}: {about:?}");
            let help = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            for example in help.lines().filter(|line| line.starts_with(' ')) {
                assert!(example.chars().count() <= 100, "{name}: {example}");
            }
            for pair in help.lines().collect::<Vec<_>>().windows(2) {
                let [first, second] = pair else { continue };
                let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
                assert!(!(is_text(first) && is_text(second)) || second.starts_with("Exit "), "{name}: {second}");
            }
        }
    }
}
