// app is what the containers of the tests run: one static program with a verb
// for each behaviour that a test needs.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	verb, args := "wait", os.Args[1:]
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "wait": // until SIGTERM
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
		fmt.Println("ready")
		s := <-stop
		fmt.Println("stopped by", s)
	case "stubborn": // never ends by itself
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "serve":
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
		fmt.Println(http.ListenAndServe(":8080", nil))
	case "exit":
		fmt.Println("going to exit")
		fmt.Fprintln(os.Stderr, "bye")
		os.Exit(number(args[0]))
	case "lines": // COUNT PAUSE CODE
		pause, _ := time.ParseDuration(args[1])
		for i := range number(args[0]) {
			fmt.Println("line", i)
			fmt.Fprintln(os.Stderr, "err", i)
			time.Sleep(pause)
		}
		os.Exit(number(args[2]))
	case "long":
		fmt.Println(strings.Repeat("x", number(args[0])))
	case "cat":
		if len(args) == 0 {
			io.Copy(os.Stdout, os.Stdin)
			return
		}
		b, err := os.ReadFile(args[0])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Stdout.Write(b)
	case "write":
		if err := os.WriteFile(args[0], []byte(args[1]), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "stat":
		var st syscall.Stat_t
		if err := syscall.Stat(args[0], &st); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%o %d %d\n", st.Mode&0o7777, st.Uid, st.Gid)
	case "env":
		fmt.Println(os.Getenv(args[0]))
	case "host":
		h, _ := os.Hostname()
		fmt.Println(h)
	case "size": // of the terminal, once for each line of input
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var s [4]uint16
			syscall.Syscall(syscall.SYS_IOCTL, 1, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&s)))
			fmt.Println("size", s[0], s[1])
		}
	default:
		fmt.Fprintln(os.Stderr, "unknown verb", verb)
		os.Exit(2)
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}
