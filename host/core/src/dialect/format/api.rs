//! Differences between the APIs that a request can be written for.

/// Facts that readers need about the API of a request.
#[derive(Debug)]
pub struct Api {
    /// Its name in error texts.
    pub name: &'static str,
    /// The most stop sequences of a request.
    pub max_stop_sequences: usize,
    /// True if a stop sequence may be blank.
    pub takes_blank_stop_sequences: bool,
    /// Highest temperature that it takes.
    pub max_temperature: f64,
    /// True if every model takes a `top_p` beside a temperature.
    pub takes_top_p_beside_temperature: bool,
    /// True if instructions may come after the conversation has begun.
    pub takes_late_instructions: bool,
    /// True if it continues a last message of the assistant; otherwise it answers it.
    pub continues_the_assistant: bool,
    /// True if a message may be empty, and the conversation may begin with the assistant.
    pub takes_empty_messages: bool,
    /// True if the result of a tool may hold pictures and files.
    pub takes_pictures_in_results: bool,
    /// True if a conversation with tool calls must have tools, too.
    pub needs_tools_beside_calls: bool,
    /// True if JSON can be asked for without a schema.
    pub has_json_mode: bool,
    /// The longest name of a tool, in characters.
    pub max_tool_name_chars: usize,
    /// The longest name of a user, in characters.
    pub max_user_chars: usize,
    /// Media types of pictures, and their names in error texts; none: any.
    pub pictures: Option<(&'static [&'static str], &'static str)>,
}
