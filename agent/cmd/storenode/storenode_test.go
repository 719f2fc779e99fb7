package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testSchema = `CREATE TABLE t (id TEXT PRIMARY KEY, i INTEGER, r REAL, s TEXT DEFAULT 'none', b BLOB);
CREATE TABLE pair (a INTEGER, b BLOB, v ANY, PRIMARY KEY (a, b));`

func startNode(t *testing.T, dir, schema string) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n, err := openNode(ctx, nodeOptions{dir: dir, listen: "127.0.0.1:0", schema: schema, cluster: "c", log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func startNodes(t *testing.T, count int) []*node {
	t.Helper()
	nodes := make([]*node, count)
	for i := range nodes {
		nodes[i] = startNode(t, t.TempDir(), testSchema)
		for _, other := range nodes[:i] {
			ok(t, nodes[i], "POST", "/peers", fmt.Sprintf(`{"add":[%q]}`, other.address))
		}
	}
	return nodes
}

// ask gives the status and the body of an answer.
func ask(t *testing.T, n *node, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(text))
}

func ok(t *testing.T, n *node, method, path, body string) string {
	t.Helper()
	code, text := ask(t, n, method, path, body)
	if code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, code, text)
	}
	return text
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in 20 s not: %s", what)
		}
	}
}

func awaitBody(t *testing.T, n *node, path, want string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = ok(t, n, "GET", path, ""); got == want {
			return
		}
	}
	t.Fatalf("%s\ngot  %s\nwant %s", path, got, want)
}

func TestValuesKeepAllTheyAre(t *testing.T) {
	nodes := startNodes(t, 2)
	rows := []string{
		`{"b":{"blob":"AP8="},"i":9223372036854775807,"id":"a","r":1.0,"s":"ü\u0000\n"}`,
		`{"b":{"blob":""},"i":-9223372036854775808,"id":"b","r":1e-300,"s":""}`,
		`{"b":null,"i":9007199254740993,"id":"c","r":{"real":"+Inf"},"s":"none"}`,
		`{"b":null,"i":null,"id":"d","r":0.1,"s":null}`,
	}
	for i, set := range []string{
		`{"i":9223372036854775807,"r":1.0,"s":"ü\u0000\n","b":{"blob":"AP8="}}`,
		`{"i":-9223372036854775808,"r":1e-300,"s":"","b":{"blob":""}}`,
		`{"i":9007199254740993,"r":{"real":"+Inf"}}`,
		`{"r":0.1,"s":null}`,
	} {
		ok(t, nodes[0], "POST", "/tx", fmt.Sprintf(`[{"table":"t","op":"put","key":{"id":"%c"},"set":%s}]`, 'a'+i, set))
	}
	ok(t, nodes[0], "POST", "/tx", `[{"table":"pair","op":"put","key":{"a":1,"b":{"blob":"AA=="}},"set":{"v":3}},{"table":"pair","op":"put","key":{"a":1,"b":{"blob":"AQ=="}},"set":{"v":3.0}}]`)
	for _, n := range nodes {
		awaitBody(t, n, "/rows?table=t", "["+strings.Join(rows, ",")+"]")
		awaitBody(t, n, "/rows?table=pair", `[{"a":1,"b":{"blob":"AA=="},"v":3},{"a":1,"b":{"blob":"AQ=="},"v":3.0}]`)
	}
	if a, b := ok(t, nodes[0], "GET", "/records?table=t", ""), ok(t, nodes[1], "GET", "/records?table=t", ""); a != b || !strings.Contains(a, `"alive":true`) {
		t.Errorf("records %s\nand %s", a, b)
	}
}

func TestWhatIsRefused(t *testing.T) {
	n := startNode(t, "", testSchema)
	for body, want := range map[string]string{
		`[{"table":"x","op":"put","key":{"id":"a"},"set":{}}]`:           "404 not-found",
		`[{"table":"t","op":"put","key":{"id":"a"},"set":{"x":1}}]`:      "404 not-found",
		`[{"table":"t","op":"patch","key":{"id":"a"},"set":{"i":1}}]`:    "404 not-found",
		`[{"table":"t","op":"put","key":{"id":"a"},"set":{"i":"text"}}]`: "400 invalid",
		`[{"table":"t","op":"put","key":{"id":"a"},"set":{"i":true}}]`:   "400 invalid",
		`[{"table":"t","op":"put","key":{"id":"a"},"set":{"i":1e2}}]`:    "400 invalid",
		`[{"table":"t","op":"put","key":{},"set":{}}]`:                   "400 invalid",
		`[{"table":"t","op":"upsert","key":{"id":"a"}}]`:                 "400 invalid",
		`[{"table":"t","op":"put","key":{"id":"a"},"sets":{}}]`:          "400 invalid",
		`[{"table":"t","op":"put","key":{"id":9223372036854775808}}]`:    "400 invalid",
		`nothing`: "400 invalid",
	} {
		code, text := ask(t, n, "POST", "/tx", body)
		var e errorBody
		if err := json.Unmarshal([]byte(text), &e); err != nil || fmt.Sprint(code, " ", e.Error.Code) != want || e.Error.Message == "" {
			t.Errorf("%s: %d %s", body, code, text)
		}
	}
	// All or nothing.
	code, _ := ask(t, n, "POST", "/tx", `[{"table":"t","op":"put","key":{"id":"a"},"set":{}},{"table":"t","op":"put","key":{"id":"b"},"set":{"x":1}}]`)
	if rows := ok(t, n, "GET", "/rows?table=t", ""); code != 404 || rows != "[]" {
		t.Errorf("%d, %s", code, rows)
	}
	for _, path := range []string{"/rows?table=x", "/subscribe?table=x"} {
		if code, text := ask(t, n, "GET", path, ""); code != 404 {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if _, err := openNode(t.Context(), nodeOptions{listen: "0.0.0.0:0"}); err == nil {
		t.Error("a storenode listens to the world")
	}
}

func TestCutAndHeal(t *testing.T) {
	nodes := startNodes(t, 2)
	put := func(n *node, key, v string) {
		ok(t, n, "POST", "/tx", fmt.Sprintf(`[{"table":"pair","op":"put","key":{"a":%s,"b":{"blob":""}},"set":{"v":%q}}]`, key, v))
	}
	put(nodes[0], "1", "first")
	awaitBody(t, nodes[1], "/rows?table=pair", `[{"a":1,"b":{"blob":""},"v":"first"}]`)
	// The one that is called cuts.
	ok(t, nodes[0], "POST", "/links", fmt.Sprintf(`{"peer":%q,"up":false}`, nodes[1].address))
	await(t, "the link is down", func() bool {
		peers := nodes[1].sync.Status().Peers
		return len(peers) == 1 && !peers[0].Connected
	})
	put(nodes[0], "1", "left")
	put(nodes[1], "2", "right")
	// The other one goes on calling; when it was turned away with both writes
	// there, nothing is left that could still come.
	refused := nodes[0].sync.Counters().Refused
	await(t, "a call is turned away", func() bool {
		nodes[1].sync.Poke("")
		return nodes[0].sync.Counters().Refused > refused
	})
	if rows := ok(t, nodes[1], "GET", "/rows?table=pair", ""); strings.Contains(rows, "left") {
		t.Fatalf("the cut leaks: %s", rows)
	}
	ok(t, nodes[0], "POST", "/links", fmt.Sprintf(`{"peer":%q,"up":true}`, nodes[1].address))
	for _, n := range nodes {
		awaitBody(t, n, "/rows?table=pair", `[{"a":1,"b":{"blob":""},"v":"left"},{"a":2,"b":{"blob":""},"v":"right"}]`)
	}
	if a, b := ok(t, nodes[0], "GET", "/known", ""), ok(t, nodes[1], "GET", "/known", ""); a != b || !strings.Contains(a, `"gaps":[]`) {
		t.Errorf("known %s and %s", a, b)
	}
}

func TestSubscribe(t *testing.T) {
	nodes := startNodes(t, 2)
	ok(t, nodes[0], "POST", "/tx", `[{"table":"t","op":"put","key":{"id":"a"},"set":{"i":1}}]`)
	awaitBody(t, nodes[1], "/rows?table=t", `[{"b":null,"i":1,"id":"a","r":null,"s":"none"}]`)
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+nodes[1].address+"/subscribe?table=t&from=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	var last uint64
	for i, want := range []string{`"event":"restart","rows":[{"b":null,"i":1,`, `"event":"update","key":{"id":"a"},"row":{"b":null,"i":2`, `"event":"delete","key":{"id":"a"}}`} {
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("line %d is %s %v", i, lines.Text(), lines.Err())
		}
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || i > 0 && e.ID != last+1 {
			t.Fatalf("line %d: id %d after %d, %v", i, e.ID, last, err)
		}
		last = e.ID
		ok(t, nodes[0], "POST", "/tx", []string{
			`[{"table":"t","op":"patch","key":{"id":"a"},"set":{"i":2}}]`, `[{"table":"t","op":"delete","key":{"id":"a"}}]`, `[]`,
		}[i])
	}
}

func TestBackupClockStatus(t *testing.T) {
	nodes := startNodes(t, 2)
	path := filepath.Join(t.TempDir(), "copy.db")
	ok(t, nodes[0], "POST", "/backup", fmt.Sprintf(`{"path":%q}`, path))
	if code, _ := ask(t, nodes[0], "POST", "/backup", fmt.Sprintf(`{"path":%q}`, path)); code != http.StatusConflict {
		t.Errorf("a second backup gave %d", code)
	}
	ok(t, nodes[0], "POST", "/clock", `{"offset_ms":3600000}`)
	ok(t, nodes[0], "POST", "/tx", `[{"table":"t","op":"put","key":{"id":"a"},"set":{}}]`)
	awaitBody(t, nodes[1], "/rows?table=t", `[{"b":null,"i":null,"id":"a","r":null,"s":"none"}]`)
	var st statusBody
	if err := json.NewDecoder(bytes.NewBufferString(ok(t, nodes[1], "GET", "/status", ""))).Decode(&st); err != nil {
		t.Fatal(err)
	}
	if !st.ClockSkewed || st.Rows != 1 || len(st.Peers) != 1 || !st.Peers[0].Connected || fmt.Sprint(st.Health) != "[store.clock]" {
		t.Errorf("%+v", st)
	}
	ok(t, nodes[0], "POST", "/scrub", "")
	if text := ok(t, nodes[0], "GET", "/check", ""); !strings.Contains(text, `"problems":[]`) {
		t.Error(text)
	}
}

// What is read as a value comes back as it is, and no text is the end of a node.
func FuzzParseValue(f *testing.F) {
	for _, text := range []string{
		"null", "1", "-9223372036854775808", "1.0", "1e+300", `"x"`, `""`, `{"blob":"AA=="}`, `{"text":"/w=="}`, `{"real":"-Inf"}`, `{"real":"x"}`, "{}", "[1]", "true", "1e999", "9223372036854775808",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var got, again value
		if json.Unmarshal(in, &got) != nil {
			return
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		if err := json.Unmarshal(text, &again); err != nil || again != got {
			t.Fatalf("%s became %+v, then %s and %+v: %v", in, got, text, again, err)
		}
	})
}
