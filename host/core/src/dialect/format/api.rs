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
    /// The highest temperature.
    pub max_temperature: f64,
    /// True if instructions may come after the conversation has begun.
    pub takes_late_instructions: bool,
    /// True if it continues a last message of the assistant; otherwise it answers it.
    pub continues_the_assistant: bool,
    /// Media types of pictures, and their names in error texts; none: any.
    pub pictures: Option<(&'static [&'static str], &'static str)>,
}
