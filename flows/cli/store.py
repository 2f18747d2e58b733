"""The commands about the store as a whole: ./run store COMMAND. They need no server."""

from cyclopts import App

from artifacts import layout
from flows.cli.answer import Answer, short, size
from flows.cli.paths import Named
from flows.cli.signals import ended_by_term
from registry import backup as backups
from registry import data, formats, migration, restoring

app = App(
    name="store",
    help="Back up what cannot be made again, restore it, and migrate it.",
    usage="Usage: ./run store COMMAND [OPTIONS]",
)


@app.command
def migrate() -> Answer:
    """Bring a store that an older version wrote to the present format."""
    count = migration.migrate()
    found = {"migrated": count, "format": formats.FORMAT}
    return Answer(found, f"{count:,} files migrated: the store has format {formats.FORMAT}.")


@app.command
def backup(file: Named, /) -> Answer:
    """Write the store into one tar file; runs may go on meanwhile.

    Args:
        file: The tar file, outside the data folder
    """
    with ended_by_term():
        made = backups.back_up(file)
    problems = data.problems()
    found = {"backup": str(file), "files": made.files, "size": made.size}
    said = [f"{name} was being written: it is left out." for name in made.left_out]
    said += [f"{each['what']}: {each['problem']}" for each in problems]
    return Answer(
        found | {"left_out": list(made.left_out), "problems": problems},
        f"{made.files:,} files, {size(made.size)} in {file}.",
        warnings=tuple(said),
    )


@app.command
def restore(file: Named, /) -> Answer:
    """Make the store of a data folder that has none from a backup.

    Args:
        file: The tar file
    """
    with ended_by_term():
        made = restoring.restore(file)
    found = {
        "store": str(layout.store()),
        "files": made.files,
        "migrated": made.migrated,
        "champions": made.champions,
    }
    lines = [f"{made.files:,} files in {layout.store()}."]
    if made.migrated:
        lines.append(f"{made.migrated:,} of them were of an older format, and were migrated.")
    champions = sorted(made.champions.items())
    lines += [f"{short(model)} is the champion of {name}." for name, model in champions]
    return Answer(found, "\n".join(lines))


for _command in (migrate, backup, restore):
    app[_command.__name__].usage = f"Usage: ./run store {_command.__name__} [OPTIONS]"
