package main

import (
	"strings"
	"testing"
)

func TestWhatIsTold(t *testing.T) {
	const run = `{"Action":"build-output","ImportPath":"x/d","Output":"d.go:1: no\n"}
{"Action":"run","Package":"x/a","Test":"TestWell"}
{"Action":"output","Package":"x/a","Test":"TestWell","Output":"=== RUN   TestWell\n"}
{"Action":"output","Package":"x/a","Test":"TestWell","Output":"    a_test.go:3: noted\n"}
{"Action":"output","Package":"x/a","Test":"TestWell","Output":"--- PASS: TestWell (0.00s)\n"}
{"Action":"pass","Package":"x/a","Test":"TestWell"}
{"Action":"output","Package":"x/a","Test":"TestRoot","Output":"    a_test.go:9: needs root\n"}
{"Action":"output","Package":"x/a","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"x/a","Test":"TestRoot"}
{"Action":"output","Package":"x/a","Test":"TestAll/root","Output":"    a_test.go:9: needs root\n"}
{"Action":"skip","Package":"x/a","Test":"TestAll/root"}
{"Action":"output","Package":"x/a","Output":"PASS\n"}
{"Action":"output","Package":"x/a","Output":"ok  \tx/a\t0.1s\n"}
{"Action":"pass","Package":"x/a"}
{"Action":"output","Package":"x/b","Test":"TestBad","Output":"    b_test.go:3: wrong\n"}
{"Action":"fail","Package":"x/b","Test":"TestBad"}
{"Action":"output","Package":"x/b","Test":"TestCut","Output":"panic: oh\n"}
{"Action":"output","Package":"x/b","Output":"FAIL\tx/b\t0.1s\n"}
{"Action":"fail","Package":"x/b"}
{"Action":"output","Package":"x/c","Output":"?   \tx/c\t[no test files]\n"}
{"Action":"skip","Package":"x/c"}
something else
`
	var out strings.Builder
	skipped, err := tell(strings.NewReader(run), &out)
	if err != nil {
		t.Fatal(err)
	}
	const want = "d.go:1: no\nok  \tx/a\t0.1s\n    b_test.go:3: wrong\npanic: oh\nFAIL\tx/b\t0.1s\n?   \tx/c\t[no test files]\nsomething else\n"
	if out.String() != want {
		t.Errorf("told\n%s\nwant\n%s", out.String(), want)
	}
	if want := "SKIPPED (needs root): x/a TestRoot and 1 more\n"; skipped != want {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
}
