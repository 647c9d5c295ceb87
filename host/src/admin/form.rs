//! Uploads as forms: a component, and its options in fields of the names that they have in the address.

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use pointsman_core::http::multipart;

/// Names of the component's field; a field with a file name may have any.
const COMPONENT: [&str; 2] = ["policy", "component"];

/// Options and content of a request, from its address and its body.
pub(super) struct Asked {
    /// Names and values: those of the address, then those of the form.
    pub(super) options: Vec<(String, String)>,
    pub(super) component: Bytes,
}

impl Asked {
    /// Takes a form apart; any other body is the component itself. `known` are the fields that a form may have.
    pub(super) fn read(
        mut options: Vec<(String, String)>,
        headers: &HeaderMap,
        body: Bytes,
        known: &[&str],
    ) -> Result<Self, String> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(boundary) = content_type.and_then(multipart::boundary) else {
            return Ok(Self { options, component: body });
        };
        let parts = multipart::parts(&body, &boundary).ok_or("the form is cut off, or a field of it has no name")?;
        let mut component = None;
        for part in parts {
            let content = body.slice(part.content);
            if part.is_file && !known.contains(&&*part.name) || COMPONENT.contains(&&*part.name) {
                if component.replace(content).is_some() {
                    return Err("the form has two components".to_owned());
                }
            } else if known.contains(&&*part.name) {
                let text = std::str::from_utf8(&content).map_err(|_| format!("the field {} is not text", part.name))?;
                options.push((part.name.into_owned(), text.trim_end_matches(['\r', '\n']).to_owned()));
            } else {
                return Err(format!(
                    "the form has a field {:?}; it may have policy, the component, and {}",
                    part.name,
                    known.join(", ")
                ));
            }
        }
        let component = component.ok_or("the form has no field policy with the component")?;
        Ok(Self { options, component })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Asked, String> {
        let field = |(head, content): &(&str, &str)| {
            format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
        };
        let body: String = fields.iter().map(field).chain(["--B--\r\n".to_owned()]).collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=B"));
        Asked::read(vec![("name".to_owned(), "mine".to_owned())], &headers, body.into(), &["name", "settings", "set"])
    }

    #[test]
    fn a_form_has_a_component_and_options() {
        let asked =
            read(&[("name=\"settings\"", "{\"a\":1}\n"), ("name=\"x\"; filename=\"p.wasm\"", "\0asm\r\n1")]).unwrap();
        assert_eq!(&asked.component[..], b"\0asm\r\n1");
        let options: Vec<(&str, &str)> = asked.options.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(options, [("name", "mine"), ("settings", "{\"a\":1}")]);
        // Settings may come out of a file.
        let asked = read(&[("name=settings; filename=s.json", "{}"), ("name=policy", "w")]).unwrap();
        assert_eq!((asked.options[1].1.as_str(), &asked.component[..]), ("{}", &b"w"[..]));
    }

    #[test]
    fn what_a_form_may_not_have_is_named() {
        let why = |fields: &[(&str, &str)]| read(fields).err().expect("it is refused");
        assert!(why(&[("name=policy", "w"), ("name=setings", "{}")]).contains("\"setings\""));
        assert!(why(&[("name=settings", "{}")]).contains("no field policy"));
        assert!(why(&[("name=policy", "w"), ("name=component", "w")]).contains("two components"));
        assert!(why(&[("x=policy", "w")]).contains("cut off"));
    }
}
