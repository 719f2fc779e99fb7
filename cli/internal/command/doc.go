// Package command is the verbs of uc, one file each: flags, which calls of the
// API a verb makes, and in which order its answers are shown.
//
// It owns exit codes, confirmation and what Ctrl-C means. It refuses to decide
// anything about the cluster: a verb sends what was asked for, and a machine
// answers. How answers look is package render's, how machines are reached is
// package connect's.
//
// Exit codes: 0 done; 1 a fault, told on standard error; 2 the command line is
// wrong; 130 ended by Ctrl-C. exec passes the exit code of its command on.
package command
