"""Runs the blocks of one page in order, as a reader would, and stops at the first that does otherwise.

A program of its own, so that a page has JAX as its reader has it, whatever the tests have set. It reads
the page's name and blocks from stdin, as JSON.
"""

import doctest
import json
import re
import subprocess
import sys
import traceback

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SECONDS = 240


class BlockError(Exception):
    """What a block did that the page does not say."""


def run_python(page, line, code, namespace):
    """Executes a block; tracebacks show the page's own lines."""
    exec(compile("\n" * (line - 1) + code, page, "exec"), namespace)


def run_pycon(page, line, code, namespace):
    """Compares what each prompt prints with what is written below it."""
    examples = [doctest.Example(source, wanted, lineno=at) for source, wanted, at in pycon_examples(code)]
    if not examples:
        raise BlockError("there is no >>> in it")
    test = doctest.DocTest(examples, {}, page, page, line - 1, None)
    test.globs = namespace
    report = []
    if doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append, clear_globs=False).failed:
        raise BlockError("".join(report))


def pycon_examples(code):
    """(source, what it should print, line within the block) of each prompt.

    In a docstring an empty line ends the output; in a block it is one of the output's lines, as on a screen.
    """
    found = []
    for at, text in enumerate(code.splitlines()):
        if text.startswith(">>> "):
            found.append([f"{text[4:]}\n", "", at])
        elif found and not found[-1][1] and (text == "..." or text.startswith("... ")):
            found[-1][0] += f"{text[4:]}\n"
        elif found:
            found[-1][1] += f"{text}\n"
        elif text.strip():
            raise BlockError("it does not begin with >>>")
    return [(source, f"{wanted.rstrip()}\n" if wanted.strip() else "", at) for source, wanted, at in found]


def run_console(page, line, code, namespace):
    """Runs each ``$ command`` in a shell, and compares what it prints with what is below it."""
    for at, command, expected in console_commands(code):
        ran = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        got = "".join(f"{printed.rstrip()}\n" for printed in ran.stdout.splitlines())
        # In doctest's language an empty line is no end here, and "..." stands for any number of lines.
        if ran.returncode != 0:
            raise BlockError(f"line {line + at}: $ {command}\nends with status {ran.returncode}:\n{got}")
        if not doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS):
            raise BlockError(f"line {line + at}: $ {command}\nshould print\n{expected}\nbut prints\n{got}")


def console_commands(code):
    """(line within the block, command, what it should print) of each prompt; a ``\\`` continues a command."""
    found = []
    lines = code.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    continues = False
    for at, text in enumerate(lines):
        if continues:
            found[-1][1] += f"\n{text.removeprefix('> ')}"
        elif text.startswith("$ "):
            found.append([at, text[2:], ""])
        elif found:
            found[-1][2] += f"{text.rstrip()}\n"
        else:
            raise BlockError("it does not begin with a line `$ command`")
        continues = (continues or text.startswith("$ ")) and text.endswith("\\")
    if not found:
        raise BlockError("there is no line `$ command` in it")
    return found


RUNNERS = {"python": run_python, "pycon": run_pycon, "console": run_console}


def main():
    page, blocks = json.load(sys.stdin)
    namespace = {"__name__": "__main__"}
    for language, line, code in blocks:
        try:
            RUNNERS[language](page, line, code, namespace)
        except BlockError as wrong:
            sys.exit(f"{page}:{line}: {language} block: {wrong}")
        except (Exception, SystemExit) as error:
            # Above the page's own frame are those of main and of the runner.
            error.__traceback__ = error.__traceback__.tb_next.tb_next
            shown = "".join(traceback.format_exception(error))
            at = [int(number) for number in re.findall(rf'File "{re.escape(page)}", line (\d+)', shown)]
            sys.exit(f"{page}:{at[0] if at else line}: {language} block:\n{shown}")


if __name__ == "__main__":
    main()
