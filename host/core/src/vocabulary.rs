//! Vocabularies: enums whose variants each have one word, in logs, metrics, the journal, configuration or the contract.

/// Makes an enum from its variants and their words: `ALL` (every variant, in the order of declaration), `as_str` (the
/// word) and `parse` (the variant of a word). All are `Clone`, `Copy`, `Debug`, `PartialEq`, `Eq` and `Hash`; further
/// attributes are kept. With `: serde` behind the name they are also `Serialize` and `Deserialize`, by the same words.
///
/// ```
/// pointsman_core::vocabulary! {
///     /// A colour.
///     pub enum Colour {
///         /// Stop.
///         Red = "red",
///         /// Go.
///         Green = "green",
///     }
/// }
///
/// assert_eq!(Colour::ALL.map(Colour::as_str), ["red", "green"]);
/// assert_eq!(Colour::parse("green"), Some(Colour::Green));
/// assert_eq!(Colour::parse("blue"), None);
/// ```
#[macro_export]
macro_rules! vocabulary {
    ($(#[$meta:meta])* $vis:vis enum $name:ident: serde { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $crate::vocabulary! {
            $(#[$meta])*
            #[derive(::serde::Serialize, ::serde::Deserialize)]
            $vis enum $name {
                $($(#[$variant_meta])* #[serde(rename = $word)] $variant = $word,)+
            }
        }
    };
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order of declaration.
            $vis const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// The word for it.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// The variant of this word; none for a word that is not of this vocabulary.
            $vis fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some($name::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
