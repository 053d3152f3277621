"""Makes of a CUDA source one that a C++ compiler takes, for the machine in software.

    translate.py FILE.cu FILE.cc

Launches and declarations of shared memory are all that is not C++ already.
"""

import pathlib
import re
import sys


def _launches(text):
    """kernel<<<...>>>( becomes Launch("kernel", kernel, ...)(."""
    at = text.find("<<<")
    while at >= 0:
        begin = len(text[:at].rstrip())
        if text[begin - 1] == ">":
            depth = 0
            while True:
                begin -= 1
                depth += {">": 1, "<": -1}.get(text[begin], 0)
                if depth == 0:
                    break
        while re.match(r"[\w:]", text[begin - 1]):
            begin -= 1
        end = text.index(">>>", at)
        kernel = text[begin:at].strip()
        name = re.match(r"[\w:]+", kernel).group()
        body = f"[=](const auto&... args) {{ {kernel}(args...); }}"
        call = f'::gdn::emulator::Launch("{name}", {body}, {text[at + 3 : end]})'
        text = text[:begin] + call + text[end + 3 :]
        at = text.find("<<<", begin)
    return text


def _shared(line, number):
    line = re.sub(
        r"extern __shared__ (?:__align__\(\d+\) )?([\w: ]+) (\w+)\[\];",
        r"auto* \2 = ::gdn::emulator::DynamicShared<\1>();",
        line,
    )
    return re.sub(
        r"__shared__ (?:__align__\(\d+\) )?(.+) (\w+)((?:\[\w+\])*);",
        rf"auto& \2 = ::gdn::emulator::StaticShared<std::type_identity_t<\1\3>>({number});",
        line,
    )


def translate(text):
    lines = _launches(text).split("\n")
    return "\n".join(_shared(line, n) for n, line in enumerate(lines, 1))


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    target.write_text(f'#line 1 "{source}"\n' + translate(source.read_text()))


if __name__ == "__main__":
    main()
