//! A plan for people: what it would do, what it leaves out, and what they come to.

use reconcile::{Plan, Step};

use super::{harmless, path, table};

/// How many of what is left out are printed; the file has all.
const LEFT_OUT: usize = 20;

/// The steps in their order, then what was left out, then what they come to.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    if !plan.steps.is_empty() {
        text = steps(&plan.steps) + "\n";
        for step in plan.steps.iter().filter(|step| !step.commands.is_empty()) {
            text += &format!("to adopt {}/{}:\n", step.pool, harmless(&step.image));
            text.extend(step.commands.iter().map(|command| format!("    {}\n", harmless(command))));
        }
    }
    for left in plan.left_out.iter().take(LEFT_OUT) {
        text += &format!("left out: {}: {}\n", harmless(&left.what), harmless(&left.why));
    }
    if plan.left_out.len() > LEFT_OUT {
        text += &format!("left out: {} more, which the plan names\n", plan.left_out.len() - LEFT_OUT);
    }
    let counts: Vec<String> = plan.summary.steps.iter().map(|(action, count)| format!("{count} {action}")).collect();
    text += &match (plan.is_refused(), counts.is_empty()) {
        (true, _) => "refused: no steps\n".to_owned(),
        (false, true) => "nothing to do\n".to_owned(),
        (false, false) => format!("{}; {} to be won\n", counts.join(", "), table::size(plan.summary.bytes)),
    };
    text
}

fn steps(steps: &[Step]) -> String {
    let mut table = table::plain();
    table.set_header(["STEP", "ACTION", "KIND", "IMAGE", "BYTES", "WHY"]);
    for step in steps {
        table.add_row([
            step.n.to_string(),
            step.action.to_string(),
            step.kind.to_string(),
            format!("{}/{}", path(&step.pool, &step.namespace), step.image),
            step.bytes.map_or_else(String::new, table::size),
            step.why.clone(),
        ]);
    }
    table::print(table)
}
