package publish

import (
	"fmt"
	"os"
	"os/signal"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or, started by one of them, holds a state directory
// like a process of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SIGNPOST_TEST_HOLD"); dir != "" {
		os.Exit(hold(dir))
	}
	if dir := os.Getenv("SIGNPOST_TEST_CHURN"); dir != "" {
		os.Exit(churn(dir))
	}
	goleak.VerifyTestMain(m)
}

// hold opens dir, says so and waits to be interrupted.
func hold(dir string) int {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	p, err := Open(Config{Dir: dir, Key: testKey(1)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer p.Close()
	fmt.Println("open")
	<-interrupted
	return 0
}
