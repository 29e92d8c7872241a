#!/usr/bin/env python3
"""Makes docs/api.md of the document that coppiced serves at /v1/openapi.json.

usage: make_api_doc.py PRINT_OPENAPI FILE [--check]

PRINT_OPENAPI is the program of that name (build/*/api/print_openapi). With --check nothing is written: the exit code is 1
if FILE is out of date.
"""
import functools
import json
import pathlib
import subprocess
import sys
import textwrap

HEAD = """# API

<!-- Made by tools/make_api_doc.py of api/route_table.cpp and api/schemas.cpp: change those, and run it again. -->

"""


def name_of(reference: dict) -> str:
    return reference["$ref"].rsplit("/", 1)[1]


def type_of(schema: dict) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return f"[{name_of(schema)}](#{name_of(schema)})"
    if "anyOf" in schema:
        return " or ".join(type_of(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}"
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    text = " or ".join(types)
    if "maximum" in schema:
        text += f", {schema['minimum']} to {schema['maximum']}"
    if "multipleOf" in schema:
        text += f", multiple of {schema['multipleOf']}"
    if "pattern" in schema:
        text += f", `{schema['pattern']}`"
    if "default" in schema:
        text += f"; default {json.dumps(schema['default'])}"
    return text


def table(titles: list[str], rows: list[list[str]]) -> str:
    """A list where a cell would be too long for a table (tools/check_prose.py)."""
    if any(len(cell) > 100 for row in rows for cell in row):
        return "".join(f"- {first}: {'. '.join(cell for cell in rest if cell)}\n" for first, *rest in rows) + "\n"
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"


def role_of(operation: dict) -> str:
    return operation["security"][0]["token"][0] if "security" in operation else "none"


def operations(document: dict):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def resolved(document: dict, part: dict) -> dict:
    while "$ref" in part:
        part = functools.reduce(dict.__getitem__, part["$ref"].split("/")[1:], document)
    return part


def describe_operation(document: dict, title: str, operation: dict) -> str:
    text = f"### `{title}`\n\n{operation['summary']}.\n\n"
    given = [resolved(document, each) for each in operation.get("parameters", [])]
    if given:
        text += table(["parameter", "in", "type", "meaning"],
                      [[f"`{each['name']}`", each["in"], type_of(each["schema"]), each["description"]] for each in given])
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        text += f"Body: {type_of(body)}{'' if operation['requestBody']['required'] else ', or none'}. "
    answers = []
    for status, response in sorted(operation["responses"].items()):
        if int(status) >= 300:
            continue
        content = response.get("content", {})
        body = "; ".join(f"{type_of(each['schema'])} (`{media}`)" for media, each in content.items())
        answers.append(f"{status} {body or 'without a body'}")
    text += f"Answers: {'; '.join(answers)}. " if answers else ""
    failures = [status for status in sorted(operation["responses"]) if int(status) >= 400]
    return text + f"Failures: {', '.join(failures)}.\n\n"


def describe_schema(name: str, schema: dict) -> str:
    text = f"### {name}\n\n"
    if "description" in schema:
        text += f"{schema['description'][0].upper()}{schema['description'][1:]}.\n\n"
    for base in schema.get("allOf", []):
        if "$ref" in base:
            text += f"As {type_of(base)}, and:\n\n"
    if "contentSchema" in schema:
        return text + f"Data: {', '.join(type_of(each) for each in schema['contentSchema']['oneOf'])}.\n\n"
    if "properties" not in schema:
        return text + f"{type_of(schema)}\n\n"
    needed = schema.get("required", [])
    rows = [[f"`{field}`" + ("" if field in needed else " (optional)"), type_of(each), each.get("description", "")]
            for field, each in schema["properties"].items()]
    return text + table(["field", "type", "meaning"], rows)


def markdown(document: dict) -> str:
    text = HEAD + document["info"]["description"] + "\n\n## Routes\n\n"
    text += table(["route", "role", "what it does"],
                  [[f"`{title}`", role_of(each), each["summary"]] for title, each in operations(document)])
    for title, operation in operations(document):
        text += describe_operation(document, title, operation)
    responses = document["components"]["responses"]
    text += "## Failures\n\nEach has the body [failure](#failure).\n\n"
    text += table(["status", "meaning"], [[name.removeprefix("failure_"), each["description"]]
                                          for name, each in responses.items()])
    text += "## Schemas\n\n"
    for name, schema in document["components"]["schemas"].items():
        text += describe_schema(name, schema)
    return "\n\n".join(wrapped(block) for block in text.strip("\n").split("\n\n")) + "\n"


def wrapped(block: str) -> str:
    """A paragraph or list in lines of at most 120 columns; headings, tables and comments as they are."""
    if block.startswith(("|", "#", "<!--")):
        return block
    items = block.split("\n") if block.startswith("- ") else [block]
    return "\n".join(textwrap.fill(item, 120, subsequent_indent="  " if item.startswith("- ") else "",
                                   break_long_words=False, break_on_hyphens=False) for item in items)


def main() -> int:
    program, file, *check = sys.argv[1:]
    document = json.loads(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    text = markdown(document)
    if check == ["--check"]:
        if pathlib.Path(file).read_text() == text:
            return 0
        print(f"{file} is out of date: run python3 tools/make_api_doc.py {program} {file}")
        return 1
    pathlib.Path(file).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
