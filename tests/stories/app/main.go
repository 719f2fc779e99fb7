// Command app is the service that stories are told about. It says which
// version it is, fails on demand, and looks at the network from where it runs.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const patience = 3 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return serve()
	}
	subject := ""
	if len(args) > 1 {
		subject = args[1]
	}
	switch args[0] {
	case "get": // URL: prints the body
		return get(subject)
	case "lookup": // NAME: prints its addresses, a line each
		return lookup(subject)
	case "dial": // reads [udp ]HOST:PORT lines, prints those that accept a connection, or answer
		return dial(os.Stdin)
	case "write": // FILE TEXT
		return os.WriteFile(subject, []byte(strings.Join(args[2:], " ")), 0o644)
	case "read": // FILE: prints it
		b, err := os.ReadFile(subject)
		fmt.Print(string(b))
		return err
	}
	return fmt.Errorf("no command %q", args[0])
}

// serve answers on port 8080. VERSION is what it says; with CRASH it ends at
// once, with SICK it never gets healthy, with SLOW it is healthy after so long,
// with LINGER it ends so long after it was told to, and notes that in /data.
func serve() error {
	version := os.Getenv("VERSION")
	fmt.Println("version", version, "starts")
	if os.Getenv("CRASH") != "" {
		return fmt.Errorf("cannot read the settings of %s", version)
	}
	slow, _ := time.ParseDuration(os.Getenv("SLOW"))
	began := time.Now()
	http.HandleFunc("/healthy", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("SICK") != "" || time.Since(began) < slow {
			fmt.Fprintln(os.Stderr, "not healthy yet")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%s %s\n", version, host)
	})
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	go http.ListenAndServe(":8080", nil) //nolint:errcheck // a port that cannot be had shows as unhealthy
	<-stop.Done()
	if linger, _ := time.ParseDuration(os.Getenv("LINGER")); linger > 0 {
		time.Sleep(linger)
		if err := os.WriteFile("/data/ended", []byte("well"), 0o644); err != nil {
			return err
		}
	}
	fmt.Println("version", version, "ends")
	return nil
}

func get(url string) error {
	client := http.Client{Timeout: patience}
	response, err := client.Get(url) // it has a timeout
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	fmt.Println(strings.Join(addresses, "\n"))
	return err
}

// dial tries all addresses at once, so that many silent ones take no longer
// than one.
func dial(in io.Reader) error {
	scanner := bufio.NewScanner(in)
	var tries []chan string
	for scanner.Scan() {
		line, result := scanner.Text(), make(chan string, 1)
		tries = append(tries, result)
		go func() {
			if !answers(line) {
				line = ""
			}
			result <- line
		}()
	}
	for _, result := range tries {
		if address := <-result; address != "" {
			fmt.Println(address)
		}
	}
	return scanner.Err()
}

// question is one of DNS, which is as good as any where whatever comes back counts.
const question = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x08internal\x00\x00\x01\x00\x01"

func answers(line string) bool {
	network, address := "tcp", line
	if rest, ok := strings.CutPrefix(line, "udp "); ok {
		network, address = "udp", rest
	}
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return false
	}
	defer conn.Close()
	if network == "tcp" {
		return true
	}
	if conn.SetDeadline(time.Now().Add(patience)) != nil {
		return false
	}
	if _, err := io.WriteString(conn, question); err != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 512))
	return err == nil && n > 0
}
