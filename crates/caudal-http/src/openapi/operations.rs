//! Every operation that the router offers, as the reference lists it. A test holds this against `routes.rs`: a route without
//! its line here fails, and a line without its route.

/// One method of one path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// Names of `components/parameters`.
    pub(super) params: &'static [&'static str],
    /// Media types of the body, when there is one.
    pub(super) body: &'static [&'static str],
    /// What is answered when it went well.
    pub(super) answers: &'static [Answer],
    /// Statuses of its problems beyond those that every operation has.
    pub(super) problems: &'static [u16],
    pub(super) errors: Errors,
}

/// A status, the media types of its body, and the name of its schema in `components/schemas`.
type Answer = (u16, &'static [&'static str], &'static str);

/// In which words an operation refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errors {
    Problem,
    /// With PostgREST's four keys as well.
    Postgrest,
    /// As AWS does.
    Aws,
}

/// Before any route: a broken head, no key, another method, a long address, a foreign host, an odd expectation, large headers,
/// a fault, a store or a broker that is away.
pub(super) const COMMON: &[u16] = &[400, 401, 405, 414, 417, 421, 431, 500, 503];

const JSON: &[&str] = &["application/json"];
const TEXT: &[&str] = &["text/plain"];
const HTML: &[&str] = &["text/html"];
const ROWS: &[&str] = &["application/json", "application/x-ndjson", "text/csv", "application/vnd.pgrst.object+json"];
const SQL_ROWS: &[&str] = &["application/json", "application/x-ndjson", "text/csv"];
const MESSAGES: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];
const AWS: &[&str] = &["text/xml", "application/x-amz-json-1.0"];
const READ: &[&str] = &["select", "order", "limit", "offset", "cursor", "and", "or", "prefer"];

const fn op(method: &'static str, path: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    let (params, body, answers, problems) = (&[], &[], &[], &[]);
    Operation { method, path, tag, summary, params, body, answers, problems, errors: Errors::Problem }
}

impl Operation {
    const fn params(mut self, params: &'static [&'static str]) -> Self {
        self.params = params;
        self
    }

    const fn body(mut self, body: &'static [&'static str]) -> Self {
        self.body = body;
        self
    }

    const fn answers(mut self, answers: &'static [Answer]) -> Self {
        self.answers = answers;
        self
    }

    const fn problems(mut self, problems: &'static [u16]) -> Self {
        self.problems = problems;
        self
    }

    const fn errors(mut self, errors: Errors) -> Self {
        self.errors = errors;
        self
    }
}

const PUBLISH_PROBLEMS: &[u16] = &[403, 404, 408, 409, 413, 415, 422, 504, 507];
const INSERT_PROBLEMS: &[u16] = &[300, 403, 404, 406, 408, 409, 413, 415, 422, 504, 507];
const INSERTS: &[&str] = &["application/json", "text/csv"];
const READ_PROBLEMS: &[u16] = &[300, 404, 406, 416, 422, 504];
const SQL_PROBLEMS: &[u16] = &[403, 404, 406, 408, 413, 415, 504];
const PUBLISHED: &[Answer] =
    &[(200, JSON, "Published"), (201, JSON, "Published"), (202, JSON, "Published"), (207, JSON, "Published")];
const PUSHED: &[Answer] = &[(200, JSON, "Object"), (201, JSON, "Object"), (202, JSON, "Object")];
const TABLE: &[Answer] = &[(200, ROWS, "Rows"), (206, ROWS, "Rows")];

pub(super) const OPERATIONS: &[Operation] = &[
    op("get", "/v1/topics", "topics", "Every topic with its columns").answers(&[(200, JSON, "Topics")]),
    op("get", "/v1/topics/{topic}", "topics", "One topic with its columns")
        .params(&["topic"])
        .answers(&[(200, JSON, "Topic")])
        .problems(&[404]),
    op("get", "/v1/topics/{topic}/drift", "topics", "Fields that came and that the schema does not name")
        .params(&["topic"])
        .answers(&[(200, JSON, "Drift")])
        .problems(&[404, 504]),
    op("post", "/v1/topics/{topic}/messages", "publish", "Publish one message or many; each gets a verdict")
        .params(&["topic", "idempotencyKey", "preferPublish"])
        .body(MESSAGES)
        .answers(PUBLISHED)
        .problems(PUBLISH_PROBLEMS),
    op("get", "/v1/topics/{topic}/messages/{id}", "read", "One record; it never changes")
        .params(&["topic", "id", "ifNoneMatch"])
        .answers(&[(200, JSON, "Object"), (304, &[], "")])
        .problems(&[404, 504]),
    op("get", "/v1/topics/{topic}/stream", "read", "Follow new records (server-sent events, without end)")
        .params(&["topic", "lastEventId"])
        .answers(&[(200, &["text/event-stream"], "Text")])
        .problems(&[404, 501, 504]),
    op("get", "/v1/receipts/{id}", "publish", "Where is my message?")
        .params(&["id", "topicQuery"])
        .answers(&[(200, JSON, "Receipt")])
        .problems(&[404, 504]),
    op("get", "/v1/dead-letters", "dead letters", "What was set aside and why; the grammar is that of /rest/v1")
        .params(READ)
        .answers(TABLE)
        .problems(READ_PROBLEMS)
        .errors(Errors::Postgrest),
    op("post", "/v1/dead-letters/redrive", "dead letters", "Send back every dead letter that matches filters")
        .params(&["dryRun", "limit"])
        .answers(&[(200, JSON, "Object")])
        .problems(&[404, 409, 413, 416, 422, 504, 507]),
    op("get", "/v1/dead-letters/{id}", "dead letters", "One dead letter with its payload")
        .params(&["id"])
        .answers(&[(200, JSON, "DeadLetter")])
        .problems(&[404, 504]),
    op("put", "/v1/dead-letters/{id}/payload", "dead letters", "Repair the payload of a dead letter")
        .params(&["id"])
        .body(JSON)
        .answers(&[(200, JSON, "Object")])
        .problems(&[404, 409, 413, 415, 422, 504, 507]),
    op("post", "/v1/dead-letters/{id}/redrive", "dead letters", "Send a dead letter back into its topic")
        .params(&["id"])
        .answers(&[(200, JSON, "Object"), (201, JSON, "Object"), (422, JSON, "Object")])
        .problems(&[404, 409, 504, 507]),
    op("get", "/v1/confirmations", "confirmations", "Where confirmations stand; the grammar is that of /rest/v1")
        .params(READ)
        .answers(TABLE)
        .problems(READ_PROBLEMS)
        .errors(Errors::Postgrest),
    op("get", "/v1/confirmations/lanes", "confirmations", "Every lane with its numbers")
        .answers(&[(200, JSON, "Object")])
        .problems(&[504]),
    op("post", "/v1/confirmations/pause", "confirmations", "Stop confirming a topic: {topic, lane, reason}")
        .body(JSON)
        .answers(&[(200, JSON, "Object")])
        .problems(&[404, 408, 413, 504, 507]),
    op("post", "/v1/confirmations/resume", "confirmations", "Go on confirming a topic: {topic, lane}")
        .body(JSON)
        .answers(&[(200, JSON, "Object")])
        .problems(&[404, 408, 413, 504, 507]),
    op(
        "post",
        "/v1/confirmations/redrive",
        "confirmations",
        "Make every dead or held transaction that matches pending again",
    )
    .params(&["dryRun", "limit"])
    .answers(&[(200, JSON, "Object")])
    .problems(&[404, 409, 413, 416, 422, 504, 507]),
    op(
        "get",
        "/v1/confirmations/{id}",
        "confirmations",
        "Where one transaction's confirmation stands, and what was tried",
    )
    .params(&["id"])
    .answers(&[(200, JSON, "Object")])
    .problems(&[404, 504]),
    op(
        "post",
        "/v1/confirmations/{id}/redrive",
        "confirmations",
        "Make a dead or held transaction pending again, same key",
    )
    .params(&["id"])
    .answers(&[(200, JSON, "Object")])
    .problems(&[404, 409, 504, 507]),
    op("post", "/v1/confirmations/{id}/void", "confirmations", "Call a transaction off that was never sent: {reason}")
        .params(&["id"])
        .body(JSON)
        .answers(&[(200, JSON, "Object")])
        .problems(&[404, 408, 409, 413, 504, 507]),
    op("post", "/v1/confirmations/{id}/resolve", "confirmations", "Record what a person found out: {as, reason}")
        .params(&["id"])
        .body(JSON)
        .answers(&[(200, JSON, "Object")])
        .problems(&[404, 408, 409, 413, 504, 507]),
    op("get", "/v1/reconcile", "operate", "The books: accepted = stored + duplicate + rejected + dead + in flight")
        .params(&["topicQuery", "count"])
        .answers(&[(200, JSON, "Books")])
        .problems(&[404, 504]),
    op("get", "/rest/v1/{table}", "read", "Rows of a table, in PostgREST's grammar, streamed")
        .params(&["table", "select", "order", "limit", "offset", "cursor", "and", "or", "prefer"])
        .answers(TABLE)
        .problems(READ_PROBLEMS)
        .errors(Errors::Postgrest),
    op("post", "/rest/v1/{table}", "publish", "Insert records as PostgREST's clients do: all of them or none")
        .params(&["table", "select", "prefer"])
        .body(INSERTS)
        // `return=minimal` has no body, `return=representation` the rows.
        .answers(&[(201, &[], ""), (202, &[], "")])
        .problems(INSERT_PROBLEMS)
        .errors(Errors::Postgrest),
    op("get", "/v1/sql", "sql", "The rows of one statement that reads")
        .params(&["statement", "limit"])
        .answers(&[(200, SQL_ROWS, "SqlRows")])
        .problems(SQL_PROBLEMS),
    op("post", "/v1/sql", "sql", "The same with the statement as the body")
        .params(&["limit"])
        .body(&["application/sql", "text/plain"])
        .answers(&[(200, SQL_ROWS, "SqlRows")])
        .problems(SQL_PROBLEMS),
    op("get", "/{db}/q={statement}", "compatibility", "The rows of one statement that reads, in the path")
        .params(&["database", "statementInPath"])
        .answers(&[(200, SQL_ROWS, "SqlRows")])
        .problems(SQL_PROBLEMS),
    op("post", "/ingresar-datos", "compatibility", "Publish {topic_arn, message}")
        .body(JSON)
        .answers(&[(200, JSON, "Publication")])
        .problems(PUBLISH_PROBLEMS),
    op("post", "/ingresar-datos/", "compatibility", "Publish {topic_arn, message}")
        .body(JSON)
        .answers(&[(200, JSON, "Publication")])
        .problems(PUBLISH_PROBLEMS),
    op("get", "/data/{id}", "compatibility", "A record by its transaction_id, or by its row number")
        .params(&["dataId"])
        .answers(&[(200, JSON, "Datos")])
        .problems(&[404, 504]),
    op("get", "/ping", "probes", "The process answers").answers(&[(200, JSON, "Status")]),
    op("get", "/livez", "probes", "The process lives").answers(&[(200, TEXT, "Text")]),
    op("get", "/readyz", "probes", "It takes messages").answers(&[(200, JSON, "Status"), (503, JSON, "Status")]),
    op("get", "/health", "probes", "Every dependency, with levels")
        .answers(&[(200, &["application/health+json"], "Status"), (503, &["application/health+json"], "Status")]),
    op("get", "/metrics", "probes", "OpenMetrics").answers(&[(200, &["application/openmetrics-text"], "Text")]),
    op("get", "/openapi.json", "reference", "This document").answers(&[(200, JSON, "Object")]),
    op("get", "/docs", "reference", "This document, to read").answers(&[(200, HTML, "Text")]),
    op("get", "/docs/errors/{code}", "reference", "Where the page of an error code is")
        .params(&["code"])
        .answers(&[(200, TEXT, "Text")])
        .problems(&[404]),
    op("post", "/sns/{topic}", "doors", "A delivery of Amazon SNS, signed")
        .params(&["topic"])
        .body(&["text/plain"])
        .answers(PUSHED)
        .problems(PUBLISH_PROBLEMS),
    op("post", "/webhooks/{topic}", "doors", "A webhook, signed")
        .params(&["topic"])
        .body(JSON)
        .answers(PUSHED)
        .problems(PUBLISH_PROBLEMS),
    op("get", "/", "reference", "The console").answers(&[(200, HTML, "Text")]),
    op("post", "/", "doors", "Publish with an AWS SDK")
        .body(&["application/x-www-form-urlencoded", "application/x-amz-json-1.0"])
        .answers(&[(200, AWS, "")])
        .problems(&[403, 404, 413, 415, 507])
        .errors(Errors::Aws),
    op("post", "/000000000000/{queue}", "doors", "Publish with an AWS SDK, at a queue's address")
        .params(&["queue"])
        .body(&["application/x-www-form-urlencoded", "application/x-amz-json-1.0"])
        .answers(&[(200, AWS, "")])
        .problems(&[403, 404, 413, 415, 507])
        .errors(Errors::Aws),
];
