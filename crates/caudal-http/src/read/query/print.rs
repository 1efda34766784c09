//! A query as text again, and random queries: parsing gives back what was printed.

use caudal_core::json::write_string;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::filter::{Compared, Condition, Logic, Operation, Quantifier, Search, Spatial, Test, Truth};
use super::select::{Arrow, FieldName, Item, JsonStep, Related, StepKey};
use super::{At, Query, Term};

/// Quoted where a name holds what means something.
fn name(text: &str) -> String {
    // `count()` is a count, whatever relation is called so.
    let plain =
        text != "count" && !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn field(field: &FieldName) -> String {
    let mut text = name(&field.name);
    for step in &field.json {
        text.push_str(if step.arrow == Arrow::Text { "->>" } else { "->" });
        match &step.key {
            StepKey::Key(key) => text.push_str(&name(key)),
            StepKey::Index(index) => text.push_str(&index.to_string()),
        }
    }
    text
}

fn prefix(alias: &Option<String>) -> String {
    alias.as_ref().map(|alias| format!("{}:", name(alias))).unwrap_or_default()
}

fn cast(cast: &Option<String>) -> String {
    cast.as_ref().map(|cast| format!("::{cast}")).unwrap_or_default()
}

fn items(items: &[Item]) -> String {
    items.iter().map(item).collect::<Vec<_>>().join(",")
}

fn item(item: &Item) -> String {
    match item {
        Item::All => "*".to_owned(),
        Item::Count { alias, cast: to } => format!("{}count(){}", prefix(alias), cast(to)),
        Item::Field { alias, field: of, cast: to, aggregate, aggregate_cast } => {
            let aggregate = aggregate.as_ref().map(|word| format!(".{word}()")).unwrap_or_default();
            format!("{}{}{}{aggregate}{}", prefix(alias), field(of), cast(to), cast(aggregate_cast))
        }
        Item::Related(related) => {
            let before = if related.spread { "...".to_owned() } else { prefix(&related.alias) };
            let hint = related.hint.as_ref().map(|hint| format!("!{}", name(hint))).unwrap_or_default();
            let join = related.inner.map_or("", |inner| if inner { "!inner" } else { "!left" });
            format!("{before}{}{hint}{join}({})", name(&related.relation), items(&related.select))
        }
    }
}

fn operation(operation: &Operation, in_tree: bool) -> String {
    let value = |text: &str| if in_tree { quoted(text) } else { text.to_owned() };
    match operation {
        Operation::Compare { how, quantifier, value: text } => {
            let word = match how {
                Compared::Eq => "eq",
                Compared::Neq => "neq",
                Compared::Gt => "gt",
                Compared::Gte => "gte",
                Compared::Lt => "lt",
                Compared::Lte => "lte",
                Compared::Like => "like",
                Compared::ILike => "ilike",
                Compared::Match => "match",
                Compared::IMatch => "imatch",
            };
            let quantifier = match quantifier {
                None => "",
                Some(Quantifier::Any) => "(any)",
                Some(Quantifier::All) => "(all)",
            };
            format!("{word}{quantifier}.{}", value(text))
        }
        Operation::Distinct(text) => format!("isdistinct.{}", value(text)),
        Operation::In(values) => {
            format!("in.({})", values.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(","))
        }
        Operation::Is(truth) => format!(
            "is.{}",
            match truth {
                Truth::Null => "null",
                Truth::NotNull => "not_null",
                Truth::True => "TRUE",
                Truth::False => "false",
                Truth::Unknown => "unknown",
            }
        ),
        Operation::Search { how, config, query } => {
            let word = match how {
                Search::Fts => "fts",
                Search::Plain => "plfts",
                Search::Phrase => "phfts",
                Search::Web => "wfts",
            };
            let config = config.as_ref().map(|config| format!("({config})")).unwrap_or_default();
            format!("{word}{config}.{}", value(query))
        }
        Operation::Spatial { how, value: text } => {
            let word = match how {
                Spatial::Contains => "cs",
                Spatial::ContainedBy => "cd",
                Spatial::Overlaps => "ov",
                Spatial::StrictlyLeft => "sl",
                Spatial::StrictlyRight => "sr",
                Spatial::NotRight => "nxr",
                Spatial::NotLeft => "nxl",
                Spatial::Adjacent => "adj",
            };
            format!("{word}.{}", value(text))
        }
    }
}

fn test(test: &Test, in_tree: bool) -> String {
    format!("{}{}", if test.negated { "not." } else { "" }, operation(&test.operation, in_tree))
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Field { field: of, test: how } => format!("{}.{}", field(of), test(how, true)),
        Condition::Tree { negated, logic, conditions } => {
            format!("{}{}", tree_name(*negated, *logic), tree(conditions))
        }
    }
}

fn tree_name(negated: bool, logic: Logic) -> String {
    format!("{}{}", if negated { "not." } else { "" }, if logic == Logic::And { "and" } else { "or" })
}

fn tree(conditions: &[Condition]) -> String {
    format!("({})", conditions.iter().map(condition).collect::<Vec<_>>().join(","))
}

fn term(term: &Term) -> String {
    let of = field(&term.field);
    let of = term.relation.as_ref().map_or(of.clone(), |relation| format!("{}({of})", name(relation)));
    let direction = term.descending.map_or("", |desc| if desc { ".desc" } else { ".asc" });
    let nulls = term.nulls_first.map_or("", |first| if first { ".nullsfirst" } else { ".nullslast" });
    format!("{of}{direction}{nulls}")
}

fn printed(query: &Query) -> String {
    let mut parts: Vec<(String, String)> = Vec::new();
    let under = |path: &[String], last: &str| path.iter().map(|n| format!("{}.", name(n))).collect::<String>() + last;
    if !query.select.is_empty() {
        parts.push(("select".into(), items(&query.select)));
    }
    for At { path, what } in &query.conditions {
        parts.push(match what {
            Condition::Field { field: of, test: how } => (under(path, &field(of)), test(how, false)),
            Condition::Tree { negated, logic, conditions } => {
                (under(path, &tree_name(*negated, *logic)), tree(conditions))
            }
        });
    }
    for At { path, what } in &query.orders {
        parts.push((under(path, "order"), what.iter().map(term).collect::<Vec<_>>().join(",")));
    }
    for (word, all) in [("limit", &query.limits), ("offset", &query.offsets)] {
        parts.extend(all.iter().map(|At { path, what }| (under(path, word), what.to_string())));
    }
    parts.extend(query.cursor.iter().map(|cursor| ("cursor".to_owned(), cursor.clone())));
    let list = |names: &[String]| names.iter().map(|n| name(n)).collect::<Vec<_>>().join(",");
    for (word, names) in [("columns", &query.columns), ("on_conflict", &query.on_conflict)] {
        parts.extend(names.iter().map(|names| (word.to_owned(), list(names))));
    }
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    parts.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}

fn any_name() -> impl Strategy<Value = String> {
    // Words of the grammar as well: quoted or not, a name is a name where one is expected.
    prop_oneof![
        "[a-z_][a-z0-9_$]{0,8}",
        "[a-zA-Z .,:()\"'\\\\éñ>-]{1,8}",
        Just("eq".to_owned()),
        Just("not".to_owned()),
        Just("count".to_owned()),
    ]
    .prop_filter("not only spaces, not a reserved key", |name| {
        let reserved = ["select", "order", "limit", "offset", "and", "or", "columns", "on_conflict", "inner", "left"];
        !name.trim().is_empty() && !reserved.contains(&name.as_str())
    })
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof!["[^\\x00]{0,12}", "[a-z,(){}\"\\\\.]{0,12}"]
}

fn any_type() -> impl Strategy<Value = String> {
    prop_oneof![Just("text".to_owned()), Just("int4".to_owned()), Just("double precision".to_owned())]
}

fn any_field() -> impl Strategy<Value = FieldName> {
    let key = prop_oneof![any_name().prop_map(StepKey::Key), any::<i32>().prop_map(|i| StepKey::Index(i.into()))];
    let key = key.prop_filter("a key of digits is an index", |key| match key {
        StepKey::Key(key) => !key.chars().all(|c| c.is_ascii_digit() || c == '-'),
        StepKey::Index(_) => true,
    });
    let arrow = prop_oneof![Just(Arrow::Json), Just(Arrow::Text)];
    let step = (arrow, key).prop_map(|(arrow, key)| JsonStep { arrow, key });
    (any_name(), vec(step, 0..3)).prop_map(|(name, json)| FieldName { name, json })
}

fn any_item() -> impl Strategy<Value = Item> {
    let aggregate = prop_oneof![Just("sum".to_owned()), Just("max".to_owned())];
    let column = (of(any_name()), any_field(), of(any_type()), of((aggregate, of(any_type())))).prop_map(
        |(alias, field, cast, aggregate)| {
            let (aggregate, aggregate_cast) = aggregate.map_or((None, None), |(word, cast)| (Some(word), cast));
            Item::Field { alias, field, cast, aggregate, aggregate_cast }
        },
    );
    let leaf = prop_oneof![
        Just(Item::All),
        (of(any_name()), of(any_type())).prop_map(|(alias, cast)| Item::Count { alias, cast }),
        column,
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        (of(any_name()), any_name(), of(any_name()), of(any::<bool>()), any::<bool>(), vec(inner, 0..4)).prop_map(
            |(alias, relation, hint, inner, spread, select)| {
                let alias = alias.filter(|_| !spread);
                Item::Related(Related { alias, relation, hint, inner, spread, select })
            },
        )
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    use Compared::{Eq, Gt, Gte, ILike, IMatch, Like, Lt, Lte, Match, Neq};
    let how = proptest::sample::select(vec![Eq, Neq, Gt, Gte, Lt, Lte, Like, ILike, Match, IMatch]);
    let quantifier = of(prop_oneof![Just(Quantifier::Any), Just(Quantifier::All)]);
    let compare = (how, quantifier, any_value()).prop_map(|(how, quantifier, value)| {
        let quantifier = quantifier.filter(|_| how != Neq);
        Operation::Compare { how, quantifier, value }
    });
    let truth = vec![Truth::Null, Truth::NotNull, Truth::True, Truth::False, Truth::Unknown];
    let search = proptest::sample::select(vec![Search::Fts, Search::Plain, Search::Phrase, Search::Web]);
    let spatial =
        proptest::sample::select(vec![Spatial::Contains, Spatial::Overlaps, Spatial::Adjacent, Spatial::NotLeft]);
    prop_oneof![
        compare,
        any_value().prop_map(Operation::Distinct),
        vec(any_value(), 0..4).prop_map(Operation::In),
        proptest::sample::select(truth).prop_map(Operation::Is),
        (search, of("[a-z]{1,8}"), any_value()).prop_map(|(how, config, query)| Operation::Search {
            how,
            config,
            query
        }),
        (spatial, any_value()).prop_map(|(how, value)| Operation::Spatial { how, value }),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let test = (any::<bool>(), any_operation()).prop_map(|(negated, operation)| Test { negated, operation });
    let leaf = (any_field(), test).prop_map(|(field, test)| Condition::Field { field, test });
    leaf.prop_recursive(3, 12, 4, |inner| {
        let logic = prop_oneof![Just(Logic::And), Just(Logic::Or)];
        (any::<bool>(), logic, vec(inner, 1..4)).prop_map(|(negated, logic, conditions)| Condition::Tree {
            negated,
            logic,
            conditions,
        })
    })
}

fn any_at<T: std::fmt::Debug>(what: impl Strategy<Value = T>) -> impl Strategy<Value = At<T>> {
    // `not` before `and` is no relation's name.
    let name = any_name().prop_map(|name| if name == "not" { "nothing".to_owned() } else { name });
    (vec(name, 0..3), what).prop_map(|(path, what)| At { path, what })
}

fn any_term() -> impl Strategy<Value = Term> {
    (of(any_name()), any_field(), of(any::<bool>()), of(any::<bool>()))
        .prop_map(|(relation, field, descending, nulls_first)| Term { relation, field, descending, nulls_first })
}

prop_compose! {
    fn any_query()(
        select in vec(any_item(), 0..4),
        conditions in vec(any_at(any_condition()), 0..4),
        orders in vec(any_at(vec(any_term(), 1..3)), 0..2),
        limits in vec(any_at(any::<i64>()), 0..2),
        offsets in vec(any_at(any::<i64>()), 0..2),
        cursor in of("[A-Za-z0-9_-]{0,20}"),
        columns in of(vec(any_name(), 1..3)),
        on_conflict in of(vec(any_name(), 1..3)),
    ) -> Query {
        Query { select, conditions, orders, limits, offsets, cursor, columns, on_conflict }
    }
}

proptest! {
    /// `PROPTEST_CASES` says how many.
    #[test]
    fn what_is_printed_is_parsed_again(query in any_query()) {
        let text = printed(&query);
        prop_assert_eq!(Query::parse(&text), Ok(query), "{}", percent_encoding::percent_decode_str(&text).decode_utf8_lossy());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z.,:()!*\"\\\\{}>&=%+-]{0,60}") {
        let _ = Query::parse(&text);
        let _ = Query::parse(&format!("select={text}&or={text}&order={text}&a={text}"));
    }
}

/// Unquoted in quotes is written as JSON writes it, near enough to be tried.
#[test]
fn quotes_are_as_json_has_them() {
    let mut text = Vec::new();
    write_string(&mut text, "a\"b\\c");
    assert_eq!(String::from_utf8(text).ok(), Some(quoted("a\"b\\c")));
}
