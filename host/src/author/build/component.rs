//! A core module made into a component, here: a compiler is all that an author in C needs.

use anyhow::Context as _;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Makes a component of the world `policy` of a core module that has the world's imports and exports.
pub(super) fn of_module(mut module: Vec<u8>, contract: &str) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", contract).context("the contract cannot be read")?;
    let world = resolve.select_world(&[package], Some("policy")).context("the contract has no world `policy`")?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.validate(true).encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::sdk;

    #[test]
    fn a_module_without_the_contracts_functions_is_refused() {
        let empty = wat::parse_str("(module (memory (export \"memory\") 1))").unwrap();
        let error = format!("{:#}", of_module(empty, sdk::CONTRACT).unwrap_err());
        assert!(error.contains("configure"), "{error}");
    }
}
