//! The yardstick: hyper on both sides and nothing between. Streams both ways, keeps connections, rewrites the target.

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let upstream = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("usage: bare UPSTREAM_ADDRESS"))?;
    let authority: http::uri::Authority = upstream.parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(usize::MAX).build(connector);

    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{{\"message\":\"listening\",\"addr\":\"{}\"}}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (client, authority) = (client.clone(), authority.clone());
        let service = service_fn(move |request| forward(client.clone(), authority.clone(), request));
        tokio::spawn(async move {
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
        });
    }
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    authority: http::uri::Authority,
    mut request: http::Request<Incoming>,
) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(authority);
    *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
    request.headers_mut().remove(http::header::HOST);
    client.request(request).await
}
