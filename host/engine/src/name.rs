//! The name that a component carries: its project's. It says whose `[policy.settings.NAME]` are.

use wasmparser::{BinaryReader, ComponentName, ComponentNameSectionReader, Parser, Payload};

/// A longer one is none, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The section of a component that has its names.
const SECTION: &str = "component-name";

/// Returns the name given in the component, if any.
pub fn of(component: &[u8]) -> Option<String> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.ok()? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.checked_sub(1)?,
            Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                let reader = BinaryReader::new(section.data(), section.data_offset());
                let named = ComponentNameSectionReader::new(reader).flatten();
                let own = named.into_iter().find_map(|name| match name {
                    ComponentName::Component { name, .. } => Some(name),
                    _ => None,
                });
                // The names of its parts may stand in a section of their own.
                if let Some(name) = own.filter(|name| (1..=MAX_NAME_BYTES).contains(&name.len())) {
                    return Some(name.to_owned());
                }
            }
            _ => {}
        }
    }
    None
}

/// A component with this name; one that has a name keeps it.
pub fn named(mut component: Vec<u8>, name: &str) -> Vec<u8> {
    if of(&component).is_some() {
        return component;
    }
    let subsection = prefixed(name.as_bytes());
    let mut section = prefixed(SECTION.as_bytes());
    // The subsection of the component's own name.
    section.push(0);
    section.extend(prefixed(&subsection));
    // A custom section.
    component.push(0);
    component.extend(prefixed(&section));
    component
}

/// Bytes with their number before them, in the format's variable length.
pub(super) fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (Vec::with_capacity(bytes.len() + 5), bytes.len());
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    #[test]
    fn a_component_is_named_once() {
        assert_eq!(of(Engine::embedded_bytes()), None);
        let once = named(Engine::embedded_bytes().to_vec(), "mine");
        assert_eq!(of(&once).as_deref(), Some("mine"));
        let twice = named(once.clone(), "other");
        assert_eq!(twice, once);
        Engine::new(crate::EngineLimits::default()).unwrap().compile(&once).map(drop).expect("it is a component still");
    }

    #[test]
    fn what_is_no_component_has_no_name() {
        for bytes in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0", b"nonsense"] {
            assert_eq!(of(bytes), None);
        }
        assert_eq!(of(&named(Engine::embedded_bytes().to_vec(), &"n".repeat(100))), None, "it is too long");
    }
}
