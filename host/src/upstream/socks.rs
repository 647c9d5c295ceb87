//! Tunnels through a SOCKS5 proxy (RFC 1928), with user and password where it asks for them (RFC 1929). The proxy resolves the
//! origin's name.

use std::io;
use std::net::IpAddr;

use http::Uri;
use pointsman_config::secret::Secret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const WITH_LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks a proxy for a tunnel to the origin. `login`: `USER:PASSWORD`.
///
/// # Errors
/// The proxy refuses, or speaks no SOCKS5.
pub(super) async fn tunnel<W>(wire: &mut W, origin: &Uri, login: Option<&Secret>) -> io::Result<()>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let host = origin.host().ok_or_else(|| io::Error::other("the base URL has no host"))?.trim_matches(['[', ']']);
    let port = origin.port_u16().unwrap_or(if origin.scheme_str() == Some("https") { 443 } else { 80 });
    let methods: &[u8] = if login.is_some() { &[VERSION, 2, NO_LOGIN, WITH_LOGIN] } else { &[VERSION, 1, NO_LOGIN] };
    wire.write_all(methods).await?;
    wire.flush().await?;
    match (answer::<2, _>(wire).await?, login) {
        ([VERSION, NO_LOGIN], _) => {}
        ([VERSION, WITH_LOGIN], Some(login)) => log_in(wire, login).await?,
        ([VERSION, _], None) => return Err(io::Error::other("the proxy asks for a user and password")),
        ([VERSION, _], Some(_)) => return Err(io::Error::other("the proxy takes no user and password")),
        (_, _) => return Err(io::Error::other("the proxy does not speak SOCKS5")),
    }
    wire.write_all(&request(host, port)?).await?;
    wire.flush().await?;
    let [version, code, _, kind] = answer(wire).await?;
    if version != VERSION {
        return Err(io::Error::other("the proxy does not speak SOCKS5"));
    }
    if code != 0 {
        let text = format!("the proxy refuses a tunnel to {host}:{port} ({})", reason(code));
        return Err(io::Error::other(text));
    }
    // The address at which the proxy is bound, and its port.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(answer::<1, _>(wire).await?[0]),
        _ => return Err(io::Error::other("the proxy's answer has an address of an unknown kind")),
    };
    let mut bound = [0; 257];
    wire.read_exact(&mut bound[..length + 2]).await?;
    Ok(())
}

async fn log_in<W>(wire: &mut W, login: &Secret) -> io::Result<()>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let (user, password) = login.expose().split_once(':').unwrap_or((login.expose(), ""));
    let too_long = |_| io::Error::other("the proxy's user or password is longer than 255 bytes");
    let mut request = vec![LOGIN_VERSION, u8::try_from(user.len()).map_err(too_long)?];
    request.extend_from_slice(user.as_bytes());
    request.push(u8::try_from(password.len()).map_err(too_long)?);
    request.extend_from_slice(password.as_bytes());
    wire.write_all(&request).await?;
    wire.flush().await?;
    match answer::<2, _>(wire).await? {
        [_, 0] => Ok(()),
        [_, _] => Err(io::Error::other("the proxy refuses its user and password")),
    }
}

fn request(host: &str, port: u16) -> io::Result<Vec<u8>> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend_from_slice(&ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len());
            request
                .extend_from_slice(&[NAME, length.map_err(|_| io::Error::other("the base URL's host is too long"))?]);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

async fn answer<const N: usize, W: AsyncRead + Unpin>(wire: &mut W) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match wire.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(_) => Err(io::Error::other("the proxy closed the connection in place of an answer of SOCKS5")),
    }
}

/// The words of RFC 1928, section 6.
fn reason(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_asked_for_by_its_name_or_address() {
        assert_eq!(request("h.example", 443).unwrap(), b"\x05\x01\x00\x03\x09h.example\x01\xbb");
        assert_eq!(request("10.1.2.3", 80).unwrap(), b"\x05\x01\x00\x01\x0a\x01\x02\x03\x00\x50");
        assert_eq!(request("::1", 1).unwrap(), [&b"\x05\x01\x00\x04"[..], &[0; 15], b"\x01\x00\x01"].concat());
        assert!(request(&"x".repeat(256), 1).is_err());
    }

    #[tokio::test]
    async fn what_speaks_no_socks_is_told_by_its_first_bytes() {
        for (said, error) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak SOCKS5"),
            (b"\x05\xff", "asks for a user and password"),
            (b"\x05", "closed the connection"),
            (b"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", "connection refused"),
            (b"\x05\x00\x05\x00\x00\x09", "unknown kind"),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(1_024);
            theirs.write_all(said).await.unwrap();
            theirs.shutdown().await.unwrap();
            let origin = "https://h.example/v1".parse().unwrap();
            let failed = tunnel(&mut ours, &origin, None).await.unwrap_err().to_string();
            assert!(failed.contains(error), "{failed}");
        }
    }
}
