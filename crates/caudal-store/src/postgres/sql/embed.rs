//! Related rows: a lateral join for each embed that the answer shows, a subquery for each that only a filter or an order names.

use std::fmt::Write;

use caudal_core::plan::{Embed, Field, ReadPlan, Value};

use super::{Scope, Sql, quoted, table_name, travelling};

/// How the rows of a statement belong to a row of the statement around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within<'p> {
    pub(super) outer: Scope<'p>,
    pub(super) embed: &'p Embed,
}

/// An embed as the statement around it calls it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined<'p> {
    scope: Scope<'p>,
    embed: &'p Embed,
    shown: bool,
    spread: bool,
}

impl Joined<'_> {
    /// The join is named after the table that it reads.
    pub(super) fn number(&self) -> usize {
        self.scope.number
    }
}

impl Sql {
    pub(super) fn embeds_of<'p>(&mut self, scope: Scope<'p>) -> Vec<Joined<'p>> {
        let is = |value: &dyn Fn(&Value) -> bool| scope.plan.select.iter().any(|selected| value(&selected.value));
        let mut joined = Vec::new();
        for (index, embed) in scope.plan.embeds.iter().enumerate() {
            let spread = is(&|value| matches!(value, Value::Spread { embed, .. } if *embed == index));
            let shown = spread || is(&|value| *value == Value::Embed(index));
            joined.push(Joined { scope: self.scope(&embed.plan), embed, shown, spread });
        }
        joined
    }

    /// ` from …`, the joins, ` where …`.
    pub(super) fn joined(&mut self, scope: Scope<'_>, within: Option<Within<'_>>, embeds: &[Joined<'_>]) {
        self.from(scope, within);
        for joined in embeds.iter().filter(|joined| joined.shown) {
            self.lateral(scope, joined);
        }
        self.conditions(scope, within);
    }

    /// The same without joins: rows are counted or looked for, not shown.
    pub(super) fn matching(&mut self, scope: Scope<'_>, within: Option<Within<'_>>) {
        self.from(scope, within);
        self.conditions(scope, within);
    }

    fn from(&mut self, scope: Scope<'_>, within: Option<Within<'_>>) {
        let _ = write!(self.text, " from {} t{}", table_name(&scope.plan.table), scope.number);
        if let Some(through) = within.and_then(|within| within.embed.through.as_ref()) {
            let _ = write!(self.text, " join {} x{} on ", table_name(&through.table), scope.number);
            for (i, (link, column)) in through.on.iter().enumerate() {
                let name = quoted(&through.table.columns[*link].name);
                let _ = write!(self.text, "{}x{}.{name} = ", if i == 0 { "" } else { " and " }, scope.number);
                self.column(scope, *column);
            }
        }
    }

    fn conditions(&mut self, scope: Scope<'_>, within: Option<Within<'_>>) {
        let mut between = " where ";
        for (outer, column) in within.iter().flat_map(|within| &within.embed.on) {
            let Some(Within { outer: around, embed }) = within else { continue };
            self.text.push_str(std::mem::replace(&mut between, " and "));
            let (letter, table) = match &embed.through {
                Some(through) => ('x', &through.table),
                None => ('t', &scope.plan.table),
            };
            let _ = write!(self.text, "{letter}{}.{} = ", scope.number, quoted(&table.columns[*column].name));
            self.column(around, *outer);
        }
        for (index, _) in scope.plan.embeds.iter().enumerate().filter(|(_, embed)| embed.inner) {
            self.text.push_str(std::mem::replace(&mut between, " and "));
            self.related(scope, index);
        }
        if !scope.plan.filter.is_empty() {
            self.text.push_str(between);
            self.all(scope, &scope.plan.filter, " and ");
        }
    }

    /// Whether a row has related ones.
    pub(super) fn related(&mut self, scope: Scope<'_>, index: usize) {
        let embed = &scope.plan.embeds[index];
        let inner = self.scope(&embed.plan);
        self.text.push_str("exists (select 1");
        self.matching(inner, Some(Within { outer: scope, embed }));
        self.text.push(')');
    }

    /// One value of the related row.
    pub(super) fn related_value(&mut self, scope: Scope<'_>, index: usize, field: &Field) {
        let embed = &scope.plan.embeds[index];
        let inner = self.scope(&embed.plan);
        self.text.push_str("(select ");
        self.bytewise(inner, field);
        self.matching(inner, Some(Within { outer: scope, embed }));
        self.text.push_str(" limit 1)");
    }

    fn lateral(&mut self, scope: Scope<'_>, joined: &Joined<'_>) {
        let Joined { scope: inner, embed, .. } = joined;
        self.text.push_str(" left join lateral (select ");
        match joined.spread {
            true => self.spread(inner.plan, embed.many),
            false if embed.many => self.text.push_str("coalesce(json_agg(row_to_json(s)), '[]') as rows"),
            false => self.text.push_str("row_to_json(s) as rows"),
        }
        self.text.push_str(" from (");
        self.select(*inner, Some(Within { outer: scope, embed }));
        let _ = write!(self.text, ") s{}) j{} on true", if embed.many { "" } else { " limit 1" }, joined.number());
    }

    /// Each value of the related rows under a name of its own.
    fn spread(&mut self, plan: &ReadPlan, many: bool) {
        for (i, column) in plan.columns().iter().enumerate() {
            let name = format!("s.{}", quoted(&column.name));
            self.text.push_str(if i == 0 { "" } else { ", " });
            let _ = match many {
                true => write!(self.text, "coalesce(json_agg({name}), '[]') as c{i}"),
                false => write!(self.text, "{} as c{i}", travelling(&name, column.ty)),
            };
        }
        self.text.push_str(if plan.select.is_empty() { "1" } else { "" });
    }
}
