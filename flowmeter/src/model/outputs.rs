//! Which columns does a model give?

use ort::session::{Session, SessionOutputs};
use ort::value::{DynMap, DynMapValueType, DynValue, Outlet, Shape, TensorElementType, ValueType};

use super::inputs::Inputs;
use super::word;
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::Own;
use crate::plugin;

/// What a model gives, in order.
#[derive(Debug)]
pub struct Outputs {
    outputs: Vec<Output>,
    /// The columns of all.
    pub columns: Vec<Added>,
}

#[derive(Debug)]
struct Output {
    name: String,
    kind: Kind,
    of: Of,
}

/// What a flow gets of an output.
#[derive(Debug)]
enum Of {
    /// A value, or several.
    Row(usize),
    /// A value for each class, by its name: `ZipMap` of ONNX.
    Classes(Vec<String>),
}

/// More values for a flow are no classes.
const MOST_VALUES: usize = 1_000;

/// Rows of a trial: not one, which could be an axis of another kind.
const ROWS: usize = 2;

impl Outputs {
    /// What the model gives when it is run once, on nothing, or else what it says that it gives: it may
    /// refuse nothing, such as a category that it has not learned. `name` stands in the columns'
    /// names.
    pub fn tried(session: &mut Session, inputs: &Inputs, name: &str) -> Result<Self, String> {
        let rows = inputs.fixed_rows.unwrap_or(ROWS);
        let declared: Vec<_> = session.outputs().iter().map(Output::declared).collect();
        let tried = inputs.nothing(rows).and_then(|nothing| session.run(nothing));
        let outputs = match &tried {
            Ok(given) => {
                let each =
                    given.iter().map(|(name, value)| Output::tried(name, &value.view(), rows));
                each.collect::<Result<Vec<_>, _>>()?
            }
            Err(e) => {
                let all = declared.into_iter().collect::<Option<Vec<_>>>();
                all.ok_or_else(|| {
                    format!("it cannot be run on zeros, which would show what it gives: {e}")
                })?
            }
        };
        if outputs.is_empty() {
            return Err("it gives nothing".into());
        }
        let columns = columns(&outputs, name);
        Ok(Self { outputs, columns })
    }

    /// The values of the columns, for each of this many rows.
    pub fn rows(&self, given: &SessionOutputs<'_>, rows: usize) -> Result<Vec<Vec<Own>>, String> {
        let mut all: Vec<Vec<Own>> = Vec::new();
        all.resize_with(rows, || Vec::with_capacity(self.columns.len()));
        for output in &self.outputs {
            let value = given.get(&output.name).ok_or("an output is missing")?;
            output.add(value, &mut all)?;
        }
        Ok(all)
    }
}

/// A name for each value: what is usual, if that says which is which.
fn columns(outputs: &[Output], model: &str) -> Vec<Added> {
    let usual: Vec<_> = outputs.iter().map(Output::usual_name).collect();
    let are_distinct = usual.iter().enumerate().all(|(place, name)| !usual[..place].contains(name));
    let mut columns = Vec::new();
    for (output, usual) in outputs.iter().zip(usual) {
        let name = if are_distinct { usual.to_owned() } else { word(&output.name) };
        let from = format!("The model `{model}`: its output `{}`", output.name);
        let mut add = |name: String, doc: String| {
            columns.push(plugin::column(format_args!("{model}_{name}"), output.kind, "", doc));
        };
        match &output.of {
            Of::Row(1) => add(name, format!("{from}.")),
            Of::Row(values) => (0..*values).for_each(|number| {
                add(format!("{name}_{number}"), format!("{from}, value {number} of a flow."));
            }),
            Of::Classes(classes) => {
                let words: Vec<_> = classes.iter().map(|class| word(class)).collect();
                // Of other alphabets little may be left.
                let are_names =
                    words.iter().enumerate().all(|(n, word)| !words[..n].contains(word));
                for (number, (class, word)) in classes.iter().zip(words).enumerate() {
                    let part = if are_names { word } else { number.to_string() };
                    add(format!("{name}_{part}"), format!("{from}, class `{class}`."));
                }
            }
        }
    }
    columns
}

impl Output {
    /// What it is, if it has given this for this many rows of nothing.
    fn tried(name: &str, value: &DynValue, rows: usize) -> Result<Self, String> {
        let kind = value.dtype();
        let (element, of) = match kind {
            ValueType::Tensor { ty, shape, .. } => (ty, Of::Row(width(name, shape, rows)?)),
            ValueType::Sequence(of) if let ValueType::Map { value: element, .. } = of.as_ref() => {
                let maps = maps(value).map_err(|e| format!("its output `{name}`: {e}"))?;
                let first = maps.into_iter().next().unwrap_or_default();
                (element, Of::Classes(first.into_iter().map(|(class, _)| class).collect()))
            }
            _ => return Err(format!("its output `{name}` is {kind}: not a value for each flow")),
        };
        let kind = kind_of(*element)
            .ok_or_else(|| format!("its output `{name}` gives {element}, which no column has"))?;
        Ok(Self { name: name.to_owned(), kind, of })
    }

    /// What it is by the model's word; none if that leaves something open.
    fn declared(outlet: &Outlet) -> Option<Self> {
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else { return None };
        let width = values_of(shape.split_first()?.1)?;
        let kind = kind_of(*ty)?;
        Some(Self { name: outlet.name().to_owned(), kind, of: Of::Row(width) })
    }

    /// What scikit-learn's exporters and others mean by it.
    fn usual_name(&self) -> &'static str {
        match (&self.of, self.kind) {
            (Of::Row(1), Kind::Float) => "value",
            (Of::Row(1), _) => "label",
            _ => "score",
        }
    }

    /// Adds its values to those of each row.
    fn add(&self, value: &DynValue, rows: &mut [Vec<Own>]) -> Result<(), String> {
        if let Of::Classes(classes) = &self.of {
            let maps = maps(value)?;
            if maps.len() != rows.len() {
                return Err(self.odd(maps.len()));
            }
            for (row, map) in rows.iter_mut().zip(maps) {
                let score = |class| map.iter().find(|(name, _)| name == class).map(|(_, x)| *x);
                row.extend(classes.iter().map(|class| score(class).map_or(Own::Null, decimal)));
            }
            return Ok(());
        }
        let all = elements(value)?;
        let Of::Row(width) = self.of else { return Ok(()) };
        if all.len() != rows.len() * width {
            return Err(self.odd(all.len()));
        }
        let mut all = all.into_iter();
        for row in rows {
            row.extend(all.by_ref().take(width));
        }
        Ok(())
    }

    fn odd(&self, values: usize) -> String {
        format!("its output `{}` has {values} values, not as many as in its trial", self.name)
    }
}

/// What columns of such values have.
fn kind_of(element: TensorElementType) -> Option<Kind> {
    Some(match element {
        TensorElementType::Float32 | TensorElementType::Float64 => Kind::Float,
        TensorElementType::Int64 | TensorElementType::Int32 => Kind::Signed,
        TensorElementType::Bool => Kind::Bool,
        TensorElementType::String => Kind::Text,
        _ => return None,
    })
}

/// How many values a row of this shape has.
fn width(name: &str, shape: &Shape, rows: usize) -> Result<usize, String> {
    let (first, axes) = shape.split_first().ok_or_else(|| {
        format!(
            "its output `{name}` is one value for all flows: its first axis is to be the flows'"
        )
    })?;
    if *first != rows as i64 {
        return Err(format!(
            "its output `{name}` has {first} rows for {rows} flows: its first axis is to be the flows'"
        ));
    }
    values_of(axes).ok_or_else(|| {
        format!(
            "its output `{name}` has an array of {axes:?} for each flow; 1 to {MOST_VALUES} values can be \
             columns"
        )
    })
}

/// How many values these axes have; none if that is not known, or too many.
fn values_of(axes: &[i64]) -> Option<usize> {
    axes.iter().try_fold(1_usize, |all, axis| {
        let axis = usize::try_from(*axis).ok()?;
        all.checked_mul(axis).filter(|values| (1..=MOST_VALUES).contains(values))
    })
}

/// The elements of a tensor, in order.
fn elements(value: &DynValue) -> Result<Vec<Own>, String> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err("it is no tensor".into()) };
    let said = |e: ort::Error| e.to_string();
    Ok(match ty {
        TensorElementType::Float32 => {
            let (_, all) = value.try_extract_tensor::<f32>().map_err(said)?;
            all.iter().map(|x| decimal(*x)).collect()
        }
        TensorElementType::Float64 => {
            let (_, all) = value.try_extract_tensor::<f64>().map_err(said)?;
            all.iter().map(|x| Own::F64(*x)).collect()
        }
        TensorElementType::Int64 => {
            let (_, all) = value.try_extract_tensor::<i64>().map_err(said)?;
            all.iter().map(|n| Own::I64(*n)).collect()
        }
        TensorElementType::Int32 => {
            let (_, all) = value.try_extract_tensor::<i32>().map_err(said)?;
            all.iter().map(|n| Own::I64(i64::from(*n))).collect()
        }
        TensorElementType::Bool => {
            let (_, all) = value.try_extract_tensor::<bool>().map_err(said)?;
            all.iter().map(|b| Own::Bool(*b)).collect()
        }
        TensorElementType::String => {
            let (_, all) = value.try_extract_strings().map_err(said)?;
            all.into_iter().map(Own::Text).collect()
        }
        other => return Err(format!("it gives {other}")),
    })
}

/// Classes with their scores, for each flow.
fn maps(value: &DynValue) -> Result<Vec<Vec<(String, f32)>>, String> {
    let said = |e: ort::Error| e.to_string();
    let maps = value.try_extract_sequence::<DynMapValueType>().map_err(said)?;
    let map = |map: &DynMap| match map.dtype() {
        ValueType::Map { key: TensorElementType::Int64, .. } => {
            let all = map.try_extract_key_values::<i64, f32>().map_err(said)?;
            Ok(all.into_iter().map(|(class, score)| (class.to_string(), score)).collect())
        }
        _ => map.try_extract_key_values::<String, f32>().map_err(said),
    };
    maps.iter().map(map).collect()
}

/// The shortest number that is this one in single precision: 0.1, not 0.10000000149011612.
fn decimal(x: f32) -> Own {
    Own::F64(x.to_string().parse().unwrap_or_else(|_| f64::from(x)))
}
