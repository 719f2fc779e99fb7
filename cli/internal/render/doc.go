// Package render is how the command line looks: tables, plans, progress,
// errors. It owns every word that is not an answer of a machine, and refuses
// to know how answers are got.
//
// The rules:
//
//   - Standard output carries the answer: a table, JSON, a ticket, log lines, a
//     plan and what was done of it. Standard error carries the conversation:
//     questions, notes, warnings, errors. So a redirect keeps just the answer.
//   - Errors are "uc: error: sentence", then "uc: hint: what to do next". Notes
//     and warnings have the same shape. No capital, no full stop, no stack.
//   - Colour and redrawing only on a terminal; NO_COLOR and TERM=dumb turn
//     colour off. Colour says nothing that a word does not say too.
//   - Tables: a header in capitals, columns two blanks apart (a cell may hold
//     single ones), "-" for what is empty. Scripts take -o json.
//   - JSON is the API's own messages: every field is always there, times are
//     RFC 3339 in UTC. See docs/cli-json.md.
//   - Times are ages ("3m"); sizes have units of 1000; both have full precision in JSON.
//   - Where output is no terminal there is one line a step, written when it ends.
package render
