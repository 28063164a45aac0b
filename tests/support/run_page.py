"""Runs the blocks of one page in order, as a reader would, and stops at the first that differs from the page.

It is a separate program, so that a page has the reader's JAX, without the tests' settings. It reads
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
    """A difference between a block's behaviour and the page."""


def run_python(page, line, code, namespace):
    """Executes a block; tracebacks show the page's own lines."""
    exec(compile("\n" * (line - 1) + code, page, "exec"), namespace)


def run_pycon(page, line, code, namespace):
    """Compares the output of each prompt with the text below it."""
    examples = [doctest.Example(source, wanted, lineno=at) for source, wanted, at in pycon_examples(code)]
    if not examples:
        raise BlockError("there is no >>> in it")
    test = doctest.DocTest(examples, {}, page, page, line - 1, None)
    test.globs = namespace
    report = []
    if doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append, clear_globs=False).failed:
        raise BlockError("".join(report))


def pycon_examples(code):
    """The triple (source, expected output, line within the block) of each prompt.

    In a docstring an empty line ends the output; in a block it belongs to the output, as on a screen.
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
    """Runs each ``$ command`` in a shell, and compares its output with the text below it."""
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
        # The comparison is doctest's, in which "..." matches any text. An empty line does not end the output.
        if ran.returncode != 0:
            raise BlockError(f"line {line + at}: $ {command}\nends with status {ran.returncode}:\n{got}")
        if not doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS):
            raise BlockError(f"line {line + at}: $ {command}\nshould print\n{expected}\nbut prints\n{got}")


def console_commands(code):
    """The triple (line in the block, command, expected output) of each prompt; ``\\`` continues a line."""
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
            # Removes the frames of main and of the runner, which are above the page's own frame.
            error.__traceback__ = error.__traceback__.tb_next.tb_next
            shown = "".join(traceback.format_exception(error))
            at = [int(number) for number in re.findall(rf'File "{re.escape(page)}", line (\d+)', shown)]
            sys.exit(f"{page}:{at[0] if at else line}: {language} block:\n{shown}")


if __name__ == "__main__":
    main()
