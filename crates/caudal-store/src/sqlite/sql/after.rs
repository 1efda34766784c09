//! Going on in an order.

use caudal_core::error::StoreError;
use caudal_core::plan::{OrderBy, Scalar, is_row_comparison};

use super::super::values::of_scalar;
use super::{Scope, Sql};

impl Sql {
    /// One comparison of rows where that says it, because an index serves it; else term by term.
    pub(super) fn after(
        &mut self,
        scope: Scope<'_>,
        order: &[OrderBy],
        place: &[Option<Scalar>],
    ) -> Result<(), StoreError> {
        if is_row_comparison(&scope.plan.table, order, place) {
            for (i, term) in order.iter().enumerate() {
                self.text.push_str(if i == 0 { "(" } else { ", " });
                self.ordered(scope, term.embed, &term.field)?;
            }
            self.text.push_str(if order[0].descending { ") < (" } else { ") > (" });
            for (i, value) in place.iter().flatten().enumerate() {
                self.text.push_str(if i == 0 { "" } else { ", " });
                self.bind(of_scalar(value));
            }
            self.text.push(')');
            return Ok(());
        }
        self.text.push('(');
        for (i, (term, value)) in order.iter().zip(place).enumerate() {
            self.text.push_str(if i == 0 { "(" } else { " or (" });
            for (term, value) in order[..i].iter().zip(place) {
                self.term(scope, term, " = ", value.as_ref())?;
                self.text.push_str(" and ");
            }
            self.beyond(scope, term, value.as_ref())?;
            self.text.push(')');
        }
        self.text.push(')');
        Ok(())
    }

    /// After the value in one term.
    fn beyond(&mut self, scope: Scope<'_>, term: &OrderBy, value: Option<&Scalar>) -> Result<(), StoreError> {
        match (value, term.nulls_first) {
            (Some(_), nulls_first) => {
                self.text.push('(');
                self.term(scope, term, if term.descending { " < " } else { " > " }, value)?;
                if !nulls_first {
                    self.text.push_str(" or ");
                    self.term(scope, term, "", None)?;
                }
                self.text.push(')');
            }
            (None, true) => {
                self.text.push_str("not ");
                self.term(scope, term, "", None)?;
            }
            (None, false) => self.text.push_str("false"),
        }
        Ok(())
    }

    /// How a term lies to a value; to no value, whether it is null.
    fn term(
        &mut self,
        scope: Scope<'_>,
        term: &OrderBy,
        comparison: &str,
        value: Option<&Scalar>,
    ) -> Result<(), StoreError> {
        self.text.push('(');
        self.ordered(scope, term.embed, &term.field)?;
        match value {
            Some(value) => {
                self.text.push_str(comparison);
                self.bind(of_scalar(value));
            }
            None => self.text.push_str(" is null"),
        }
        self.text.push(')');
        Ok(())
    }
}
