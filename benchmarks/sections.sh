# shellcheck shell=bash
# Sections of a run with one deadline: each has a limit and a log, and the next one runs even if it fails.
#
#   sections_begin SECONDS SUMMARY_FILE
#   section NAME LIMIT LOG COMMAND...     appends the command's output to LOG, and a line to the summary
#   sections_end                          prints the summary; its status is 0 if every section passed
#
# A command whose status is 77 did not run; its last line says why, as in Automake. COMMAND may be an exported
# function.

sections_begin() {
  sections_deadline=$((SECONDS + $1))
  sections_summary=$2
  sections_status=0
  : > "$sections_summary"
}

# Prints the seconds until the deadline.
sections_left() {
  echo $((sections_deadline - SECONDS))
}

_sections_record() {
  printf '%-16s %-22s %4d s  %s\n' "$@" | tee -a "$sections_summary"
}

section() {
  local name=$1 limit=$2 log=$3 left status begin last
  shift 3
  left=$(sections_left)
  if ((left < 1 || limit < 1)); then
    _sections_record "$name" "left out" 0 "the time was over"
    sections_status=1
    return
  fi
  ((limit < left)) || limit=$left
  begin=$SECONDS
  # The bash that timeout starts knows exported functions.
  timeout --kill-after=10 "$limit" bash -c '"$@"' section "$@" >> "$log" 2>&1 < /dev/null
  status=$?
  last=$(grep -av '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-160)
  case $status in
    0) _sections_record "$name" ok $((SECONDS - begin)) "$last" ;;
    77) _sections_record "$name" "not run" $((SECONDS - begin)) "$last" ;;
    124 | 137) _sections_record "$name" "stopped at its limit" $((SECONDS - begin)) "$last" ;;
    *) _sections_record "$name" "FAILED ($status)" $((SECONDS - begin)) "$last" ;;
  esac
  case $status in 0 | 77) ;; *) sections_status=1 ;; esac
}

sections_end() {
  echo
  cat "$sections_summary"
  return "$sections_status"
}
