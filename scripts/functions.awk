# functions.awk - names every C function that is too long or too branchy. Relies on the layout that
# clang-format keeps: a function's opening and closing brace stand alone in the first column.
#
# Complexity is McCabe's with a switch counted once, however many cases it has: a table of names is
# not a maze.
BEGIN {
    max_lines = 90
    max_complexity = 25
}

FNR == 1 { inside = 0; head = "" }

/^[a-zA-Z_]/ && !/;$/ && !/^(struct|enum|union|typedef|static const|const)[^(]*$/ {
    head = $0
    sub(/\(.*/, "", head)
    sub(/.*[ *]/, "", head)
}

/^\{$/ { inside = 1; start = FNR; score = 1 }

inside {
    line = $0
    gsub(/"([^"\\]|\\.)*"/, "", line)
    gsub(/'([^'\\]|\\.)*'/, "", line)
    sub(/\/\*.*/, "", line)
    score += gsub(/(^|[^a-zA-Z0-9_])(if|for|while|switch) \(/, "", line)
    score += gsub(/&&|\|\||\?/, "", line)
}

inside && /^\}/ {
    lines = FNR - start + 1
    if (lines > max_lines)
        printf "%s:%d: %s() has %d lines, at most %d\n", FILENAME, start, head, lines, max_lines
    if (score > max_complexity)
        printf "%s:%d: %s() has complexity %d, at most %d\n", FILENAME, start, head, score, max_complexity
    inside = 0
}
