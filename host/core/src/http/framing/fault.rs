//! Faults of a request's framing.

vocabulary! {
    /// The reason why a request is refused.
    pub enum Fault {
        /// The first line is not method, target and version.
        RequestLine = "request_line",
        /// The version is neither HTTP/1.0 nor HTTP/1.1.
        Version = "version",
        /// A line of the head does not end in CR LF, or a CR stands inside it.
        LineEnd = "line_end",
        /// A line of the head begins with white space.
        Fold = "fold",
        /// A field's name is not a token followed by a colon.
        FieldName = "field_name",
        /// A field's value holds a control character.
        FieldValue = "field_value",
        /// `Content-Length` is not one number.
        ContentLength = "content_length",
        /// `Content-Length` stands twice, with one value or two.
        ContentLengthTwice = "content_length_twice",
        /// `Transfer-Encoding` is not exactly `chunked`, once, in HTTP/1.1.
        TransferEncoding = "transfer_encoding",
        /// `Content-Length` and `Transfer-Encoding` stand together.
        BothLengths = "both_lengths",
        /// The head is longer than the limit.
        HeadTooLarge = "head_too_large",
        /// The head has too many fields.
        TooManyFields = "too_many_fields",
        /// A chunk's size is not hexadecimal digits, or its line is too long.
        ChunkSize = "chunk_size",
        /// A chunk's bytes are not followed by CR LF.
        ChunkEnd = "chunk_end",
        /// The trailer is malformed, too long, or speaks of framing.
        Trailer = "trailer",
    }
}

impl Fault {
    /// Returns the message to the client.
    pub const fn message(self) -> &'static str {
        match self {
            Fault::RequestLine => "The request's first line is malformed: send a method, a target and a version.",
            Fault::Version => "The request's version is neither HTTP/1.1 nor HTTP/1.0: send one of these, or HTTP/2.",
            Fault::LineEnd => "A line of the request's head does not end in CR LF, or holds a CR: end each with CR LF.",
            Fault::Fold => "A line of the request's head begins with white space: send each header on one line.",
            Fault::FieldName => "A header's name is malformed: send a name, a colon right behind it, and a value.",
            Fault::FieldValue => "A header's value holds a control character: remove it.",
            Fault::ContentLength => "The Content-Length is not one decimal number: send the body's length in bytes.",
            Fault::ContentLengthTwice => "The request has two Content-Length headers: send one.",
            Fault::TransferEncoding => {
                "The Transfer-Encoding is not exactly `chunked`, once, in HTTP/1.1: send that, or a Content-Length."
            }
            Fault::BothLengths => "The request has both Content-Length and Transfer-Encoding: send one of them.",
            Fault::HeadTooLarge => {
                "The request's head is larger than this proxy accepts: send fewer or shorter headers."
            }
            Fault::TooManyFields => "The request has more headers than this proxy accepts: send at most 100.",
            Fault::ChunkSize => "A chunk of the body has a malformed size.",
            Fault::ChunkEnd => "A chunk of the body is longer or shorter than its size says.",
            Fault::Trailer => "The trailer behind the body is malformed, too large, or names a length.",
        }
    }

    /// Returns true if the fault is in a body, whose head was handed over before.
    pub const fn in_body(self) -> bool {
        matches!(self, Fault::ChunkSize | Fault::ChunkEnd | Fault::Trailer)
    }
}
