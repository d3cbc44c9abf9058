#!/bin/sh
# Plots of a run:  sh bench/plot.sh build/bench/short.json build/bench/plots [svg|png]
#   rate     GFLOP/s against N, a line per contestant   (f32, D 64, one thread)
#   masks    time(mask) / time(full) against area       (f32, D 64, heed)
#   types    GFLOP/s against N, a line per storage type (D 128, heed)
#   decode   time per token against M, a line per cache and per storage type (D 128, two threads)
#   mixers   time per token and head against N: softmax attention, windows, recurrences, scans and long convolutions, of
#            which 64 channels are a head (D 64, one thread); mixers.txt: from where on each is faster than softmax
#            attention, and which is fastest at each length
set -eu
[ $# -ge 2 ] || { sed -n '2,9s/^# *//p' "$0"; exit 2; }
json=$1 out=$2 format=${3:-svg}
command -v gnuplot >/dev/null || { echo "plot.sh: no gnuplot here"; exit 1; }
mkdir -p "$out"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

# A file for each family, its rows those of the table:
#   attention  mask type d n m h g threads contestant FLOPS seconds area
#   decode     cache type d m h g threads contestant FLOPS seconds
#   recurrence op type d e n h threads contestant FLOPS seconds
#   scan op type n c s threads contestant FLOPS seconds
#   convolution op type n [k] c threads contestant FLOPS seconds
touch "$data/attention" "$data/decode" "$data/recurrence" "$data/scan" "$data/convolution"
awk -v folder="$data" '
    /^ *"[A-Za-z_]+":/ {
        key = $0; sub(/^ *"/, "", key); sub(/".*/, "", key)
        value = $0; sub(/^[^:]*: */, "", value); sub(/,$/, "", value); gsub(/"/, "", value)
        field[key] = value
    }
    /^ *}/ {
        single = field["run_type"] == "iteration" && field["repetitions"] <= 1
        if ((field["aggregate_name"] == "median" || single) && "seconds" in field) {
            parts = split(field["run_name"], part, "/")
            row = ""
            for (x = 2; x <= parts; ++x) { if (x < parts) sub(/.*:/, "", part[x]); row = row part[x] " " }
            print row field["FLOPS"], field["seconds"], field["area"] >(folder "/" part[1])
        }
        delete field
    }' "$json"
[ -s "$data/attention" ] || [ -s "$data/decode" ] || [ -s "$data/recurrence" ] || { echo "plot.sh: no rows in $json"; exit 1; }
peak=$(sed -n 's/.*"fma_peak_f32": "\([0-9.]*\)".*/\1/p' "$json")
date=$(sed -n 's/.*"date": "\([0-9-]*\)T.*/\1/p' "$json")

# A file of points for each line of a plot, in the order of the table.
lines_of() {  # plot, family; filter, label, x and y in terms of the fields of a row
    awk -v folder="$data" -v plot="$1" "$3"' {
        label = '"$4"'
        if (!(label in seen)) { seen[label] = 1; print label >(folder "/" plot ".labels") }
        print '"$5, $6"' >(folder "/" plot "." label)
    }' "$data/$2"
    [ -f "$data/$1.labels" ] || : >"$data/$1.labels"
    while read -r label; do sort -u -k1,1n -o "$data/$1.$label" "$data/$1.$label"; done <"$data/$1.labels"
}
draw_lines() {  # plot
    curves=""
    while read -r label; do
        curves="$curves, '$data/$1.$label' with linespoints linewidth 2 pointtype 7 pointsize 0.5 title '$label'"
    done <"$data/$1.labels"
    [ -z "$curves" ] || printf 'plot %s\n' "${curves#, }"
}
size=$([ "$format" = png ] && echo 1000,420 || echo 900,380)
head_of_plot() {  # name
    cat <<END
set terminal $format size $size font "sans,11" noenhanced
set output "$out/$1.$format"
set grid linecolor rgb "#dddddd"
set border 3 linecolor rgb "#666666"
set tics nomirror
set key left top samplen 2 noautotitle
set linetype 1 linecolor rgb "#c0392b"
set linetype 2 linecolor rgb "#7f8c8d"
set linetype 3 linecolor rgb "#2980b9"
set linetype 4 linecolor rgb "#27ae60"
set linetype 5 linecolor rgb "#8e44ad"
set linetype 6 linecolor rgb "#d68910"
set linetype 7 linecolor rgb "#17202a"
END
}

# Two panels, full and causal, with the peak as a line.
by_length() {  # name, filter, label, title
    for mask in full causal; do lines_of "$1_$mask" attention '$1 == "'$mask'" && '"$2" "$3" '$4' '$10 / 1e9'; done
    top=$(cat "$data/$1"_*.* | awk -v most="${peak:-0}e-9" '$2 + 0 > most + 0 { most = $2 } END { print 1.05 * most }')
    {
        head_of_plot "$1"
        echo "set multiplot layout 1,2 title '$4, $date'"
        echo "set logscale x 2; set xlabel 'N = M'; set ylabel 'GFLOP/s, useful flops'; set yrange [0:$top]"
        echo "set key outside bottom horizontal"
        [ -z "$peak" ] ||
            echo "set arrow from graph 0, first ${peak}e-9 to graph 1, first ${peak}e-9 nohead linecolor rgb '#999999'"
        for mask in full causal; do
            echo "set title '$mask'"
            draw_lines "$1_$mask"
        done
        echo "unset multiplot"
    } | gnuplot
}
# Two panels: the caches that hold float, heed and rivals; what heed holds of each type.
decoding() {  # name, title
    lines_of "$1_caches" decode '$2 == "f32" && $7 == 2' '$8 == "heed" ? $1 : $8' '$4' '$10 * 1e3'
    lines_of "$1_types" decode '$1 ~ /contiguous|per_channel|hadamard/ && $8 == "heed" && $7 == 2' \
        '$2 ($1 == "contiguous" ? "" : "_" $1)' '$4' '$10 * 1e3'
    {
        head_of_plot "$1"
        echo "set multiplot layout 1,2 title '$2, $date'"
        echo "set logscale xy 2; set xlabel 'M'; set ylabel 'ms a token'; set key outside bottom horizontal"
        echo "set title 'float caches'"
        draw_lines "$1_caches"
        echo "set title 'heed by type'"
        draw_lines "$1_types"
        echo "unset multiplot"
    } | gnuplot
}
[ ! -s "$data/decode" ] || decoding decode 'a query of 32 heads over 8, D 128, two threads'

# All kinds of mixers, as rows: kind mixer n ns. Those of several lengths on one axis, then the tables.
mixing() {  # name, title
    {
        awk '$2 == "f32" && $3 == 64 && $8 == 1 && $9 == "heed" && $4 == $5 && ($1 == "causal" || $1 ~ /^window_/) {
            print "softmax", ($1 == "causal" ? "softmax" : $1), $4, 1e9 * $11 / $4 / $6 }' "$data/attention"
        awk '$2 == "f32" && $4 == 64 && $7 == 1 && $8 == "heed" && $1 !~ /^step/ {
            print "recurrence", $1, $5, 1e9 * $10 / $5 / $6 }' "$data/recurrence"
        awk '$2 == "f32" && $6 == 1 && $7 == "heed" && $1 !~ /^(exponentials|reordered|neural_hmm)/ {
            print "scan", $1, $3, 1e9 * $9 / $3 / ($4 / 64) }' "$data/scan"
        awk '$2 == "f32" && $(NF - 2) == "heed" && $(NF - 3) == 1 && ($1 == "hyena2" || $1 ~ /^long/ && $3 == $4) {
            print "convolution", $1, $3, 1e9 * $NF / $3 / ($(NF - 4) / 64) }' "$data/convolution"
    } | sort -u -k1,3 >"$data/mixers"
    awk 'NR == FNR { lengths[$2]++; next } lengths[$2] > 1' "$data/mixers" "$data/mixers" >"$data/long_mixers"
    lines_of "$1" long_mixers '1' '$2' '$3' '$4'
    size=$([ "$format" = png ] && echo 1000,620 || echo 900,560)
    {
        head_of_plot "$1"
        echo "set logscale xy 2; set xlabel 'N'; set ylabel 'ns a token and head'; set key outside right top vertical"
        echo "set title '$2, $date'"
        draw_lines "$1"
    } | gnuplot
    awk '{ kind[$2] = $1; at[$2, $3] = $4; if ($3 > longest) longest = $3 }
         !(($1, $3) in least) || $4 < at[least[$1, $3], $3] { least[$1, $3] = $2 }
         $1 != "softmax" && !($2 in seen) { seen[$2] = 1; name[++count] = $2 }
         END {
             printf "%-34s %s\n", "mixer", "faster than causal softmax attention from N on"
             for (x = 1; x <= count; ++x) {
                 from = ""
                 for (n = 64; n <= longest; n *= 2)
                     if ((("softmax", n) in at) && ((name[x], n) in at)) {
                         if (at[name[x], n] >= at["softmax", n]) from = ""
                         else if (from == "") from = n
                     }
                 printf "%-34s %s\n", name[x], from == "" ? "-" : from
             }
             kinds = split("softmax recurrence scan convolution", of)
             printf "\n%-8s %-12s", "N", "fastest"
             for (x = 1; x <= kinds; ++x) printf " %s", (x < kinds ? sprintf("%-26s", of[x] ", ns") : of[x] ", ns\n")
             for (n = 64; n <= longest; n *= 2) {
                 best = ""
                 row = ""
                 for (x = 1; x <= kinds; ++x) {
                     mixer = least[of[x], n]
                     mixer_ns = mixer == "" ? "-" : sprintf("%s %.0f", mixer, at[mixer, n])
                     row = row " " (x < kinds ? sprintf("%-26s", mixer_ns) : mixer_ns)
                     if (mixer != "" && (best == "" || at[mixer, n] < at[best, n])) best = mixer
                 }
                 if (best != "") printf "%-8d %-12s%s\n", n, kind[best], row
             }
         }' "$data/mixers" >"$out/$1.txt"
}
[ ! -s "$data/recurrence" ] || (mixing mixers 'mixers of sequences, f32, D 64, one thread')
[ -s "$data/attention" ] || { ls "$out"; exit; }

one='$8 == 1 && $4 == $5'
by_length rate "\$2 == \"f32\" && \$3 == 64 && $one" '$9' 'f32, D 64, one thread (thin line: FMA peak)'
by_length types "\$9 == \"heed\" && \$3 == 128 && $one" '$2' 'heed by type, D 128, one thread (thin line: f32 FMA peak)'

# Time of a head by mask, over that of full at the same length; full is taken at any number of heads.
awk '
    $2 == "f32" && $3 == 64 && $8 == 1 && $9 == "heed" && $4 == $5 {
        time = $11 / $6
        if ($1 == "full") full[$4] = time
        else { name[++count] = $1; n[count] = $4; area[count] = $12 / ($4 * $4); took[count] = time }
    }
    END {
        for (x = 1; x <= count; ++x)
            if (n[x] in full) {
                kind = name[x] ~ /^block_sparse/ ? "blocks" : "masks"
                if (kind == "blocks" || n[x] == 8192) print area[x], took[x] / full[n[x]], name[x], kind
            }
    }' "$data/attention" | sort -g | awk '$4 == "masks" && ++count % 2 { $4 = "above" } { print }' >"$data/masks"
size=$([ "$format" = png ] && echo 1000,620 || echo 900,560)
{
    head_of_plot masks
    cat <<END
set logscale xy 10
set xlabel 'area / N^2'
set ylabel 'time(mask) / time(full)'
set title 'masks of LongCA-bench (N 8192) and random blocks, heed, f32, D 64, one thread, $date'
set xrange [0.005:1.3]
set yrange [0.008:2]
plot x with lines linecolor rgb '#999999' title 'time = area', \\
     1.25 * x with lines dashtype 2 linecolor rgb '#999999' title '1.25 area', \\
     '<grep -w blocks $data/masks' using 1:2 with points pointtype 5 pointsize 0.5 linecolor rgb '#2980b9' \\
         title 'block sparse', \\
     '<grep masks $data/masks' using 1:2:3 with labels left offset 0.6,-0.4 font 'sans,7', \\
     '<grep above $data/masks' using 1:2:3 with labels right offset -0.6,0.4 font 'sans,7', \\
     '<grep -v blocks $data/masks' using 1:2 with points pointtype 7 pointsize 0.6 linecolor rgb '#c0392b' title 'masks'
END
} | gnuplot
ls "$out"
