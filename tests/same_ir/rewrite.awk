# SPDX-License-Identifier: Apache-2.0
# rewrite.awk - the same computation written differently: a module's text with every commutative pair of
# operands swapped, comparisons turned around, every value renamed, up before gate and k before q, an
# activation spelled out, an op that nobody reads.
#
#   awk -f rewrite.awk graph.kir > other.kir          fails when one of the rewrites found nothing to do
#   -v any_activation=1       the module need not hold a silu
function swap_calls(text,    out, p) { # add(a, number) inside slots
    out = ""
    while (match(text, /add\(div\(s, [0-9]+\), [0-9.e-]+\)/)) {
        p = substr(text, RSTART + 4, RLENGTH - 5)
        out = out substr(text, 1, RSTART - 1) "add(" substr(p, index(p, "), ") + 3) ", " substr(p, 1, index(p, "), ")) ")"
        text = substr(text, RSTART + RLENGTH)
        slots++
    }
    return out text
}

{
    sub(/  @".*/, "")
    $0 = swap_calls($0)
    gsub(/%/, "%other_")
}
/= (add|mul|eq|and|or|max|min) %/ {
    match($0, /%[A-Za-z0-9_]+, %[A-Za-z0-9_]+/)
    pair = substr($0, RSTART, RLENGTH)
    comma = index(pair, ", ")
    $0 = substr($0, 1, RSTART - 1) substr(pair, comma + 2) ", " substr(pair, 1, comma - 1) substr($0, RSTART + RLENGTH)
    swapped++
}
/= le %/ {
    match($0, /%[A-Za-z0-9_]+, %[A-Za-z0-9_]+/)
    pair = substr($0, RSTART, RLENGTH)
    comma = index(pair, ", ")
    $0 = substr($0, 1, RSTART - 1) substr(pair, comma + 2) ", " substr(pair, 1, comma - 1) substr($0, RSTART + RLENGTH)
    sub(/= le /, "= ge ")
    turned++
}
/= silu %/ { # silu(x) = sigmoid(x) x
    type = $0
    sub(/^.* : /, "", type)
    operand = $4
    print "    %sig = sigmoid " operand " : " type
    sub(/= silu .*/, "= mul %sig, " operand " : " type)
    print "    %unread = neg " operand " : " type
    spelled++
}
# the gate's and the query's products stand one line later, in the list of parameters too
/^ +%other_(wg|wq): / || /= matmul %other_[0-9]+, %other_(wg|wq) / {
    later = $0
    moved++
    next
}
{
    print
    if (later != "") {
        print later
        later = ""
    }
}
END {
    print "rewritten: " slots " slots, " swapped " pairs, " turned " comparisons, " spelled \
        " activations, " moved " lines" > "/dev/stderr"
    exit !(slots && swapped && turned && moved >= 4 && (spelled || any_activation))
}
