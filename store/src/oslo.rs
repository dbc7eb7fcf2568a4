//! Reading `glance-api.conf`: the file format of oslo.config.
//!
//! As oslo.config has it: sections whose names know no upper case (but `DEFAULT`), `key = value` or `key: value`, lines that
//! begin with a blank go on with the value before them, `#` and `;` begin a comment line, one pair of quotes is taken off,
//! the last of several values counts unless all are asked for, and `$option`, `${option}` and `$group.option` stand for
//! another option of the file.
//!
//! Such files hold passwords. No error and no `Debug` here shows a value.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
};

/// What a chain of `$option` may be long at most.
const DEEPEST: usize = 16;

/// A configuration file, or several laid over each other.
#[derive(Clone)]
pub struct OsloConf {
    files: Vec<PathBuf>,
    sections: HashMap<String, HashMap<String, Vec<Value>>>,
}

/// A value, and where it is.
#[derive(Clone)]
struct Value {
    text: String,
    /// Index of its file.
    file: usize,
    line: usize,
}

/// What is wrong with a configuration file, and where; it never shows a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadConf {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for BadConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for BadConf {}

impl fmt::Debug for OsloConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsloConf").field("files", &self.files).finish_non_exhaustive()
    }
}

impl OsloConf {
    /// Reads one file.
    ///
    /// # Errors
    /// A file that cannot be read, or that oslo.config would refuse.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, BadConf> {
        Self::read_all([path])
    }

    /// Reads several files; what a later one sets counts, as with repeated `--config-file`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_all(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Self, BadConf> {
        let mut conf = Self { files: Vec::new(), sections: HashMap::new() };
        for path in paths {
            let path = path.as_ref();
            let whole = |why: String| BadConf { file: path.to_owned(), line: None, why };
            let bytes = fs::read(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
            let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8".into()))?;
            conf.lay(path.to_owned(), &text)?;
        }
        Ok(conf)
    }

    /// Takes a file's text; `name` is for errors.
    ///
    /// # Errors
    /// What oslo.config would refuse.
    pub fn parse(text: &str, name: impl Into<PathBuf>) -> Result<Self, BadConf> {
        let mut conf = Self { files: Vec::new(), sections: HashMap::new() };
        conf.lay(name.into(), text)?;
        Ok(conf)
    }

    fn lay(&mut self, path: PathBuf, text: &str) -> Result<(), BadConf> {
        let file = self.files.len();
        self.files.push(path);
        let mut section: Option<String> = None;
        // The key whose value may go on in the next line.
        let mut open: Option<String> = None;
        for (number, line) in text.split('\n').enumerate() {
            let (number, line) = (number + 1, line.trim_end());
            let bad = |why: &str| self.bad(file, Some(number), why);
            if line.is_empty() {
                open = None;
            } else if line.starts_with([' ', '\t']) {
                let (Some(section), Some(key)) = (&section, &open) else {
                    return Err(bad("a line that begins with a blank continues a value, but there is none above it"));
                };
                let values = self.sections.get_mut(section).and_then(|keys| keys.get_mut(key));
                let value = values.and_then(|values| values.last_mut()).expect("the value it goes on with");
                value.text.push('\n');
                value.text.push_str(line.trim_start());
            } else if let Some(rest) = line.strip_prefix('[') {
                open = None;
                let name = rest.strip_suffix(']').ok_or_else(|| bad("a section's name ends with ]"))?;
                if name.is_empty() {
                    return Err(bad("a section without a name"));
                }
                let name = group(name);
                self.sections.entry(name.clone()).or_default();
                section = Some(name);
            } else if line.starts_with(['#', ';']) {
                open = None;
            } else {
                let (key, value) =
                    line.split_once([':', '=']).ok_or_else(|| bad("neither `key = value` nor a section"))?;
                let key = key.trim();
                if key.is_empty() {
                    return Err(bad("a value without a key"));
                }
                let section = section.clone().ok_or_else(|| bad("a value before any section"))?;
                let value = Value { text: unquoted(value.trim()).to_owned(), file, line: number };
                self.sections.entry(section).or_default().entry(key.to_owned()).or_default().push(value);
                open = Some(key.to_owned());
            }
        }
        Ok(())
    }

    /// Whether there is such a section.
    #[must_use]
    pub fn has_section(&self, section: &str) -> bool {
        self.sections.contains_key(&group(section))
    }

    /// Whether an option is set, be it to nothing.
    #[must_use]
    pub fn is_set(&self, section: &str, key: &str) -> bool {
        self.last(section, key).is_some()
    }

    /// An option's value, if it is set.
    ///
    /// # Errors
    /// A `$reference` to what the file does not set.
    pub fn get(&self, section: &str, key: &str) -> Result<Option<String>, BadConf> {
        self.last(section, key).map(|value| self.substituted(section, value, 0)).transpose()
    }

    /// All values of an option that may be set more than once, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_all(&self, section: &str, key: &str) -> Result<Vec<String>, BadConf> {
        let values = self.sections.get(&group(section)).and_then(|keys| keys.get(key));
        values.into_iter().flatten().map(|value| self.substituted(section, value, 0)).collect()
    }

    /// A boolean: `true`, `1`, `on`, `yes`, or `false`, `0`, `off`, `no`, however written.
    ///
    /// # Errors
    /// Anything else.
    pub fn get_bool(&self, section: &str, key: &str) -> Result<Option<bool>, BadConf> {
        let Some(text) = self.get(section, key)? else { return Ok(None) };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(Some(true)),
            "false" | "0" | "off" | "no" => Ok(Some(false)),
            _ => Err(self.wrong(section, key, "is neither true nor false")),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Anything else.
    pub fn get_int(&self, section: &str, key: &str) -> Result<Option<i64>, BadConf> {
        let Some(text) = self.get(section, key)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.wrong(section, key, "is not a whole number"))
    }

    /// Comma-separated values.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_list(&self, section: &str, key: &str) -> Result<Option<Vec<String>>, BadConf> {
        let Some(text) = self.get(section, key)? else { return Ok(None) };
        let text = text.trim().trim_end_matches(',');
        if text.is_empty() {
            return Ok(Some(Vec::new()));
        }
        Ok(Some(text.split(',').map(|item| item.trim().to_owned()).collect()))
    }

    /// Comma-separated `name:value` pairs, in their order.
    ///
    /// # Errors
    /// A pair without a colon or a name, or a name that comes twice.
    pub fn get_dict(&self, section: &str, key: &str) -> Result<Option<Vec<(String, String)>>, BadConf> {
        let Some(text) = self.get(section, key)? else { return Ok(None) };
        let mut pairs: Vec<(String, String)> = Vec::new();
        if text.trim().is_empty() {
            return Ok(Some(pairs));
        }
        for pair in text.split(',') {
            let (name, value) =
                pair.split_once(':').ok_or_else(|| self.wrong(section, key, "is not NAME:VALUE, NAME:VALUE, …"))?;
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() || pairs.iter().any(|(known, _)| known == name) {
                return Err(self.wrong(section, key, "has a name that is empty or comes twice"));
            }
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(Some(pairs))
    }

    /// An error about an option, which names its section, its key and where it is set.
    #[must_use]
    pub fn wrong(&self, section: &str, key: &str, why: &str) -> BadConf {
        let why = format!("[{section}] {key} {why}");
        match self.last(section, key) {
            Some(value) => self.bad(value.file, Some(value.line), &why),
            None => self.bad(self.files.len().saturating_sub(1), None, &why),
        }
    }

    fn bad(&self, file: usize, line: Option<usize>, why: &str) -> BadConf {
        BadConf { file: self.files.get(file).cloned().unwrap_or_default(), line, why: why.to_owned() }
    }

    fn last(&self, section: &str, key: &str) -> Option<&Value> {
        self.sections.get(&group(section))?.get(key)?.last()
    }

    /// The value with its `$references` replaced, `$$` and `\$` by a dollar.
    fn substituted(&self, section: &str, value: &Value, depth: usize) -> Result<String, BadConf> {
        let escaped = value.text.replace(r"\$", "$$");
        let mut out = String::new();
        let mut rest = escaped.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(next) = after.strip_prefix('$') {
                out.push('$');
                rest = next;
                continue;
            }
            let braced = after.strip_prefix('{');
            let name = reference(braced.unwrap_or(after));
            let (name, used) = match braced {
                Some(inner) if !inner[name.len()..].starts_with('}') => ("", 0),
                Some(_) => (name, name.len() + 2),
                None => (name, name.len()),
            };
            if name.is_empty() {
                // As Python's safe_substitute: what is no reference stays.
                out.push('$');
                rest = after;
                continue;
            }
            let found = match name.split_once('.') {
                Some((other, key)) => self.last(other, key).map(|found| (other, found)),
                None => None,
            };
            let found = found.or_else(|| self.last(section, name).map(|found| (section, found)));
            let found = found.or_else(|| self.last("DEFAULT", name).map(|found| ("DEFAULT", found)));
            // The name is not told: it may be a part of a password with an unescaped dollar.
            let why = "a value refers with $ to an option that is not set here (a dollar itself is written $$)";
            let (other, found) = found.ok_or_else(|| self.bad(value.file, Some(value.line), why))?;
            if depth == DEEPEST {
                return Err(self.bad(value.file, Some(value.line), "values refer to each other in a circle"));
            }
            out.push_str(&self.substituted(other, found, depth + 1)?);
            rest = &after[used..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Sections are the same in any case, but for `DEFAULT`.
fn group(name: &str) -> String {
    if name == "DEFAULT" { name.to_owned() } else { name.to_lowercase() }
}

/// Without the one pair of quotes around it.
fn unquoted(value: &str) -> &str {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) if value.len() > 1 && value.ends_with(quote) => &value[1..value.len() - 1],
        // A single quotation mark is its own pair.
        Some('"' | '\'') if value.len() == 1 => "",
        _ => value,
    }
}

/// The option's name that the text begins with; empty if it begins with none.
fn reference(text: &str) -> &str {
    let first = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let end = text.find(|c: char| !(c == '_' || c == '.' || c.is_ascii_alphanumeric())).unwrap_or(text.len());
    if first { &text[..end] } else { "" }
}

#[cfg(test)]
mod tests;
