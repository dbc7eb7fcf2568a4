//! Tables: no lines, columns as wide as what is in them.

use comfy_table::{Cell, CellAlignment, Table};
use indicatif::BinaryBytes;
use rbd::LinkedImage;
use reconcile::RbdImage;

use super::harmless;

/// Bytes, as people read them.
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

fn table(header: &[&str]) -> Table {
    let mut table = plain();
    table.set_header(header.iter().copied());
    table
}

/// A table without lines or header.
pub(super) fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table
}

/// The table as text, a line for each row.
pub(super) fn print(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| harmless(line.trim_end()) + "\n").collect()
}

/// One field a line.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Images, one a line.
pub(crate) fn images(images: &[RbdImage]) -> String {
    let mut table = table(&["NAME", "SIZE", "CREATED", "SNAPSHOTS"]);
    for image in images {
        let snapshots: Vec<&str> = image.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        let created = image.created.map_or_else(String::new, |created| created.strftime("%F %T").to_string());
        table.add_row([
            Cell::new(&image.name),
            Cell::new(size(image.size)).set_alignment(CellAlignment::Right),
            Cell::new(created),
            Cell::new(snapshots.join(", ")),
        ]);
    }
    print(table)
}

/// Clones, one a line.
pub(crate) fn children(children: &[LinkedImage]) -> String {
    let mut table = table(&["POOL", "NAMESPACE", "IMAGE", "IN TRASH"]);
    for child in children {
        let in_trash = if child.in_trash { "yes" } else { "no" };
        table.add_row([child.pool.as_str(), &child.namespace, &child.name, in_trash]);
    }
    print(table)
}
