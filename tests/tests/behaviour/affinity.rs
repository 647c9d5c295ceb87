//! Things that live at one backend go back to it, and sessions stay where their prompt cache is.

use http::Method;
use pointsman_tests::{Answer, Backend, Proxy, Request, Upstream, backend, chat, json, proxy, sse, status, upstream};
use serde_json::{Value, json as value};

/// Providers that make a response, a file or a batch with their name in its id.
async fn makers() -> [Upstream; 3] {
    let one = async |name: &'static str| {
        let up = upstream().handler(move |seen, number| {
            let path = seen.target.split('?').next().unwrap_or_default();
            let asked: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            let response = value!({
                "id": format!("resp_{name}_{number}"), "object": "response", "status": "completed", "model": "m",
                "output": [
                    {"id": format!("rs_{name}_{number}"), "type": "reasoning", "summary": [],
                     "encrypted_content": format!("gAAAA{name}{number}")},
                    {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
                     "content": [{"type": "output_text", "text": name, "annotations": []}]},
                ],
                "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
            });
            match (seen.method.as_str(), path) {
                ("POST", "/v1/responses") if asked["stream"] == true => sse([
                    value!({"type": "response.created", "response": {"id": response["id"], "status": "in_progress"}}),
                    value!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
                            "content_index": 0, "delta": name}),
                    value!({"type": "response.completed", "response": response}),
                ]
                .map(|event| event.to_string())),
                ("POST", "/v1/responses") => json(response),
                ("POST", "/v1/chat/completions") => chat(name),
                (_, path) => {
                    let kind = path.split('/').nth(2).unwrap_or_default();
                    json(value!({"id": format!("{kind}-{name}-{number}"), "object": kind, "by": name}))
                }
            }
        });
        up.start().await
    };
    [one("a").await, one("b").await, one("c").await]
}

fn backends(ups: &[Upstream; 3]) -> [Backend; 3] {
    [backend("a").primary(&ups[0]), backend("b").primary(&ups[1]), backend("c").primary(&ups[2])]
}

async fn in_front_of(ups: &[Upstream; 3]) -> Proxy {
    backends(ups).into_iter().fold(proxy!(), |proxy, backend| proxy.backend(backend)).start().await
}

fn by(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-pointsman-backend").to_owned()
}

/// Sends the request that `make` makes often enough that luck would show, and answers who served them.
async fn served(make: impl Fn() -> Request) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(by(&make().send().await));
    }
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn a_response_goes_on_where_it_was_made_plain_and_streamed() {
    let ups = makers().await;
    let proxy = in_front_of(&ups).await;
    for stream in [false, true] {
        for _ in 0..4 {
            let first = proxy.post("/v1/responses").json(&value!({"model": "m", "input": "hi", "stream": stream}));
            let first = first.send().await;
            let home = by(&first);
            let text = first.text();
            let at = text.find("resp_").unwrap();
            let id = text[at..].split('"').next().unwrap();
            let next = value!({"model": "m", "input": "and?", "previous_response_id": id});
            assert_eq!(served(|| proxy.post("/v1/responses").json(&next)).await, [home.as_str()]);
            assert_eq!(served(|| proxy.get(&format!("/v1/responses/{id}"))).await, [home.as_str()]);
            assert_eq!(served(|| proxy.get(&format!("/v1/responses/{id}/input_items?limit=2"))).await, [home.as_str()]);
            let encrypted = value!({"model": "m", "store": false, "input": [
                {"type": "reasoning", "summary": [], "encrypted_content": text[text.find("gAAAA").unwrap()..].split('"').next()},
                {"role": "user", "content": "and?"},
            ]});
            assert_eq!(served(|| proxy.post("/v1/responses").json(&encrypted)).await, [home.as_str()]);
            let deleted = proxy.request(Method::DELETE, &format!("/v1/responses/{id}")).send().await;
            assert_eq!(by(&deleted), home);
        }
    }
}

#[tokio::test]
async fn files_batches_and_the_like_go_back_to_the_backend_that_made_them_also_after_a_restart() {
    let ups = makers().await;
    let mut proxy = in_front_of(&ups).await;
    let file = proxy.post("/v1/files").body("multipart/form-data; boundary=x", "--x--").send().await;
    let (home, file) = (by(&file), file.json()["id"].as_str().unwrap().to_owned());
    let batch = proxy.post("/v1/batches").json(&value!({"input_file_id": file, "endpoint": "/v1/chat/completions"}));
    let batch = batch.send().await;
    assert_eq!(by(&batch), home);
    let batch = batch.json()["id"].as_str().unwrap().to_owned();
    let about = async |proxy: &Proxy| {
        assert_eq!(served(|| proxy.get(&format!("/v1/files/{file}/content"))).await, [home.as_str()]);
        assert_eq!(served(|| proxy.get(&format!("/v1/batches/{batch}"))).await, [home.as_str()]);
        let tuned = value!({"training_file": file, "model": "m"});
        assert_eq!(served(|| proxy.post("/v1/fine_tuning/jobs").json(&tuned)).await, [home.as_str()]);
        let store = value!({"file_ids": [file]});
        assert_eq!(served(|| proxy.post("/v1/vector_stores").json(&store)).await, [home.as_str()]);
        let chat = value!({"model": "m", "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": file}}]}]});
        assert_eq!(served(|| proxy.post("/v1/chat/completions").json(&chat)).await, [home.as_str()]);
    };
    about(&proxy).await;
    proxy.wait_rows(2, "SELECT backend FROM homes").await;
    proxy.kill9().await;
    proxy.restart().await;
    about(&proxy).await;
    // What one client stores comes together.
    assert_eq!(served(|| proxy.get("/v1/files")).await.len(), 1);
}

#[tokio::test]
async fn items_containers_and_what_nobody_knows_are_found_again_by_their_ids() {
    let one = async |name: &'static str| {
        let up = upstream().handler(move |seen, number| match seen.target.as_str() {
            "/v1/responses" => json(value!({
                "id": format!("resp_{name}_{number}"), "object": "response", "status": "completed", "model": "m",
                "output": [
                    {"id": format!("ci_{name}_{number}"), "type": "code_interpreter_call", "status": "completed",
                     "container_id": format!("cntr_{name}_{number}"), "code": "1"},
                    {"id": format!("msg_{name}_{number}"), "type": "message", "role": "assistant", "status": "completed",
                     "content": [{"type": "output_text", "text": name, "annotations": []}]},
                ],
            })),
            _ => json(value!({"id": format!("thing-{name}-{number}"), "by": name})),
        });
        up.start().await
    };
    let ups = [one("a").await, one("b").await, one("c").await];
    let proxy = in_front_of(&ups).await;
    let first = proxy.post("/v1/responses").json(&value!({"model": "m", "input": "hi"})).send().await;
    let (home, output) = (by(&first), first.json()["output"].clone());
    let goes_on = |input: Value, tools: Value| {
        let proxy = &proxy;
        let next = value!({"model": "m", "input": input, "tools": tools});
        async move { served(|| proxy.post("/v1/responses").json(&next)).await }
    };
    let reference = value!([{"type": "item_reference", "id": output[1]["id"]}, {"role": "user", "content": "and?"}]);
    assert_eq!(goes_on(reference, value!([])).await, [home.as_str()]);
    let container = value!([{"type": "code_interpreter", "container": output[0]["container_id"]}]);
    assert_eq!(goes_on(value!("and?"), container).await, [home.as_str()]);
    let files = format!("/v1/containers/{}/files", output[0]["container_id"].as_str().unwrap());
    assert_eq!(served(|| proxy.get(&files)).await, [home.as_str()]);
    let new = proxy.post("/v1/widgets").json(&value!({"name": "x"})).send().await;
    let path = format!("/v1/widgets/{}", new.json()["id"].as_str().unwrap());
    assert_eq!(served(|| proxy.get(&path)).await, [by(&new).as_str()]);
}

#[tokio::test]
async fn two_keys_of_one_account_are_one_home() {
    let ups = makers().await;
    let account = ["acme", "other", "acme"];
    let builder = backends(&ups)
        .into_iter()
        .zip(account)
        .fold(proxy!(), |proxy, (backend, account)| proxy.backend(backend.set("labels.account", account)));
    let mut proxy = builder.start().await;
    let first = loop {
        let first = proxy.post("/v1/responses").json(&value!({"model": "m", "input": "hi"})).send().await;
        if by(&first) != "b" {
            break first;
        }
    };
    let next = value!({"model": "m", "input": "and?", "previous_response_id": first.json()["id"]});
    let homes = served(|| proxy.post("/v1/responses").json(&next)).await;
    assert!(homes.iter().all(|home| home == "a" || home == "c"), "{homes:?}");
    // With one of them out of service the other has it too.
    let path = format!("/api/backends/{}/drain", by(&first));
    assert_eq!(proxy.admin_request(Method::POST, &path).send().await.status, 200);
    let other = if by(&first) == "a" { "c" } else { "a" };
    assert_eq!(served(|| proxy.post("/v1/responses").json(&next)).await, [other]);
    proxy.sigterm();
    proxy.wait_exit().await;
}

#[tokio::test]
async fn the_ids_of_a_long_list_are_learned() {
    let lister = |name: &'static str| {
        upstream().handler(move |seen, _| match seen.target.as_str() {
            "/v1/files" => {
                let file = |n: usize| value!({"id": format!("file-{name}-{n}"), "object": "file", "filename": "x".repeat(300)});
                json(value!({"object": "list", "data": (0..5_000).map(file).collect::<Vec<_>>()}))
            }
            _ => json(value!({"id": "file", "object": "file", "by": name})),
        })
    };
    let ups = [lister("a").start().await, lister("b").start().await];
    let proxy = proxy!().backend(backend("a").primary(&ups[0])).backend(backend("b").primary(&ups[1])).start().await;
    let list = proxy.get("/v1/files").send().await;
    assert!(list.body.len() > 1024 * 1024, "{}", list.body.len());
    let home = by(&list);
    for number in [0, 2_499, 4_999] {
        assert_eq!(served(|| proxy.get(&format!("/v1/files/file-{home}-{number}"))).await, [home.as_str()], "{number}");
    }
}

#[tokio::test]
async fn what_only_one_backend_has_is_not_asked_of_another() {
    let maker = upstream().handler(|seen, _| match seen.target.as_str() {
        "/v1/responses" if seen.json()["previous_response_id"].is_null() => {
            json(value!({"id": "resp_1", "object": "response",
            "status": "completed", "output": [{"type": "message", "id": "msg", "role": "assistant",
            "content": [{"type": "output_text", "text": "hi"}]}]}))
        }
        _ => status(429).retry_after(60),
    });
    let answer = value!({"id": "resp_other", "object": "response", "status": "completed", "output": [{"type": "message",
        "id": "msg", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}]});
    let (maker, other) = (maker.start().await, upstream().reply(json(answer)).start().await);
    let proxy = proxy!().backend(backend("maker").primary(&maker)).backend(backend("other").fallback(&other));
    let proxy = proxy.setting("primary_wait_ms", 0).setting("emergency_rpm_fraction", 0.0).start().await;
    let first = proxy.post("/v1/responses").json(&value!({"model": "m", "input": "hi"})).send().await;
    assert_eq!(by(&first), "maker");
    let next = value!({"model": "m", "input": "and?", "previous_response_id": "resp_1"});
    let answer = proxy.post("/v1/responses").json(&next).send().await;
    assert_eq!((answer.status.as_u16(), other.count()), (503, 0));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("names something that only this backend has"), "{message}");
    let unknown = value!({"model": "m", "input": "and?", "previous_response_id": "resp_unknown"});
    let answer = proxy.post("/v1/responses").json(&unknown).send().await;
    assert_eq!(answer.header("x-pointsman-backend"), "other", "of what nobody has heard nobody is kept from");
}

#[tokio::test]
async fn sessions_of_known_agents_stay_where_their_prompt_cache_is() {
    let ups = makers().await;
    let proxy = in_front_of(&ups).await;
    let told = |number: usize, how: usize| {
        let id = format!("0c1d-{number}-{how}");
        let mut body = value!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let header = match how {
            0 => "x-claude-code-session-id",
            1 => "session_id",
            2 => "x-session-id",
            3 => "x-session-affinity",
            4 => "x-opencode-session",
            5 => "x-pointsman-session",
            6 => {
                body["prompt_cache_key"] = id.clone().into();
                "x-none"
            }
            7 => {
                body["metadata"] = value!({"user_id": format!("user_1_account__session_{id}")});
                "x-none"
            }
            _ => {
                body["session_id"] = id.clone().into();
                "x-none"
            }
        };
        proxy.post("/v1/chat/completions").json(&body).header(header, &id)
    };
    let names = ["a", "b", "c"];
    let tell = async |name: &str, what: &str| {
        let done = proxy.admin_request(Method::POST, &format!("/api/backends/{name}/{what}")).send().await;
        assert_eq!(done.status, 200, "{}", done.text());
    };
    // Every session begins at a backend that is given, and later has the choice of all.
    for (number, home) in names.into_iter().enumerate() {
        for other in names.into_iter().filter(|name| *name != home) {
            tell(other, "drain").await;
        }
        for how in 0..9 {
            assert_eq!(by(&told(number, how).send().await), home);
        }
        for other in names.into_iter().filter(|name| *name != home) {
            tell(other, "resume").await;
        }
    }
    for (number, home) in names.into_iter().enumerate() {
        for how in 0..9 {
            for _ in 0..3 {
                assert_eq!(by(&told(number, how).send().await), home, "told by way {how}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_leaves_a_backend_that_is_out_and_stays_at_the_next() {
    let (first, second) =
        (upstream().reply(chat("first")).start().await, upstream().reply(chat("second")).start().await);
    let proxy = proxy!().backend(backend("a").primary(&first)).backend(backend("b").primary(&second)).start().await;
    let ask = || proxy.chat().header("x-session-id", "s-1");
    let home = by(&ask().send().await);
    proxy.admin_request(Method::POST, &format!("/api/backends/{home}/drain")).send().await;
    let next = by(&ask().send().await);
    assert_ne!(next, home);
    proxy.admin_request(Method::POST, &format!("/api/backends/{home}/resume")).send().await;
    assert_eq!(served(ask).await, [next], "its prompt cache is there now");
    let rows = proxy.wait_rows(10, "SELECT session FROM exchanges").await;
    assert!(rows.iter().all(|row| row["session"] == "s-1"));
}
