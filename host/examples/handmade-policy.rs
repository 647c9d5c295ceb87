//! Makes a component of a contract and a module in WebAssembly's text form: `handmade-policy CONTRACT.wit MODULE.wat OUT.wasm`.

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [contract, module, out] = arguments.as_slice() else {
        bail!("usage: handmade-policy CONTRACT.wit MODULE.wat OUT.wasm");
    };
    let read = |file: &str| std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"));
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str(contract, &read(contract)?)?;
    let world = resolve.select_world(&[package], Some("policy"))?;
    let mut module = wat::parse_str(read(module)?)?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8)?;
    let component = wit_component::ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    std::fs::write(out, component).with_context(|| format!("{out} cannot be written"))
}
