//! Which type of Arrow's have the values that plugins keep?
//!
//! What is not of one type is text, as `str()` gives it.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt64Builder,
};
use arrow_array::{ArrayRef, ListArray, NullArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};

/// Lists in lists behind which they are text. One may contain itself.
const DEPTH: usize = 8;

/// A value, or none.
pub type Object<'py> = Option<Bound<'py, PyAny>>;

/// What values have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing is there.
    Nothing,
    Bool,
    /// Whether any is negative, and whether any needs 64 bits without a sign.
    Int {
        negative: bool,
        large: bool,
    },
    Float,
    Text,
    Bytes,
    List(Box<Type>),
    /// Nothing but a text.
    Mixed,
}

impl Type {
    /// Of a value.
    pub fn of(value: &Object<'_>) -> Self {
        value.as_ref().map_or(Self::Nothing, |value| Self::at(value, 0))
    }

    fn at(value: &Bound<'_, PyAny>, depth: usize) -> Self {
        if value.is_none() {
            Self::Nothing
        } else if value.is_instance_of::<PyBool>() {
            Self::Bool
        } else if value.is_instance_of::<PyInt>() {
            match (value.extract::<i64>(), value.extract::<u64>()) {
                (Ok(n), _) => Self::Int { negative: n < 0, large: false },
                (_, Ok(_)) => Self::Int { negative: false, large: true },
                _ => Self::Mixed,
            }
        } else if value.is_instance_of::<PyFloat>() {
            Self::Float
        } else if value.is_instance_of::<PyString>() {
            Self::Text
        } else if value.is_instance_of::<PyBytes>() {
            Self::Bytes
        } else if let Some(items) = items(value).filter(|_| depth < DEPTH) {
            let all = items.iter().map(|item| Self::at(item, depth + 1));
            match all.fold(Self::Nothing, Self::with) {
                Self::Mixed => Self::Mixed,
                item => Self::List(Box::new(item)),
            }
        } else {
            Self::Mixed
        }
    }

    /// What this and another have in common.
    pub fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (
                Self::Int { negative, large },
                Self::Int { negative: also_negative, large: also_large },
            ) => {
                let (negative, large) = (negative || also_negative, large || also_large);
                if negative && large { Self::Mixed } else { Self::Int { negative, large } }
            }
            (Self::Int { .. }, Self::Float) | (Self::Float, Self::Int { .. }) => Self::Float,
            (Self::List(item), Self::List(other)) => match item.with(*other) {
                Self::Mixed => Self::Mixed,
                item => Self::List(Box::new(item)),
            },
            (one, other) if one == other => one,
            _ => Self::Mixed,
        }
    }

    /// As Arrow has it.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Nothing => DataType::Null,
            Self::Bool => DataType::Boolean,
            Self::Int { large: true, .. } => DataType::UInt64,
            Self::Int { .. } => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text | Self::Mixed => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::List(item) => DataType::List(Arc::new(field(item))),
        }
    }

    /// The values, which are all of this type.
    pub fn array(&self, values: &[Object<'_>]) -> PyResult<ArrayRef> {
        let there = || values.iter().map(|value| value.as_ref().filter(|value| !value.is_none()));
        macro_rules! built {
            ($builder:ident, $value:expr) => {{
                let mut builder = $builder::new();
                for value in there() {
                    builder.append_option(value.map($value).transpose()?);
                }
                Arc::new(builder.finish())
            }};
        }
        Ok(match self {
            Self::Nothing => Arc::new(NullArray::new(values.len())),
            Self::Bool => built!(BooleanBuilder, PyAnyMethods::extract::<bool>),
            Self::Int { large: true, .. } => built!(UInt64Builder, PyAnyMethods::extract::<u64>),
            Self::Int { .. } => built!(Int64Builder, PyAnyMethods::extract::<i64>),
            Self::Float => built!(Float64Builder, PyAnyMethods::extract::<f64>),
            Self::Text | Self::Mixed => {
                built!(StringBuilder, |value| value.str().map(|s| s.to_string_lossy().into_owned()))
            }
            Self::Bytes => built!(BinaryBuilder, PyAnyMethods::extract::<Vec<u8>>),
            Self::List(item) => list(item, there().map(|value| value.and_then(items)))?,
        })
    }
}

fn field(item: &Type) -> Field {
    Field::new_list_field(item.data_type(), true)
}

/// An array of lists.
fn list<'py>(
    item: &Type,
    lists: impl Iterator<Item = Option<Vec<Bound<'py, PyAny>>>>,
) -> PyResult<ArrayRef> {
    let (mut values, mut lengths, mut is_there) = (Vec::new(), Vec::new(), Vec::new());
    for list in lists {
        is_there.push(list.is_some());
        let list = list.unwrap_or_default();
        lengths.push(list.len());
        values.extend(list.into_iter().map(Some));
    }
    if i32::try_from(values.len()).is_err() {
        return Err(PyOverflowError::new_err("a plugin's lists are too long for a table"));
    }
    let offsets = OffsetBuffer::from_lengths(lengths);
    let nulls = Some(NullBuffer::from(is_there)).filter(|nulls| nulls.null_count() > 0);
    let list = ListArray::try_new(Arc::new(field(item)), offsets, item.array(&values)?, nulls);
    Ok(Arc::new(list.map_err(crate::table::told)?))
}

/// The items of a list or tuple.
fn items<'py>(value: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = value.cast::<PyList>() {
        return Some(list.iter().collect());
    }
    value.cast::<PyTuple>().ok().map(|tuple| tuple.iter().collect())
}

/// What numpy has as Python has it: its numbers, and its arrays as lists.
pub fn plain(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyString>() {
        return Ok(value);
    }
    if value.hasattr("dtype")? && value.hasattr("tolist")? {
        return value.call_method0("tolist");
    }
    if let Some(items) = items(&value)
        && items.iter().any(|item| item.hasattr("dtype").unwrap_or(false))
    {
        let items = items.into_iter().map(plain).collect::<PyResult<Vec<_>>>()?;
        return Ok(PyList::new(value.py(), items)?.into_any());
    }
    Ok(value)
}
