// workload is what the pods of the end-to-end tests run, from an image that holds nothing else.
//
//	hold MIB             take so much memory, touch all of it, and keep it
//	serve ADDRESS DIR    an HTTP server of the files in DIR
//	refresh FILE         write a new line into FILE each second: "content N"
//	get URL [SECONDS]    print what URL answers, asking until it does; exit 1 if it never does
//	exit CODE [SECONDS]  exit with CODE after SECONDS
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const usage = "usage: workload hold MIB | serve ADDRESS DIR | refresh FILE | get URL [SECONDS] | exit CODE [SECONDS]"

func main() {
	// The first process of a container gets no default action for SIGTERM: without this a pod would take
	// its whole grace period to end.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		os.Exit(0)
	}()
	arguments := os.Args[1:]
	if len(arguments) < 2 {
		fail(usage)
	}
	switch command, first := arguments[0], arguments[1]; command {
	case "hold":
		hold(number(first))
	case "serve":
		if len(arguments) != 3 {
			fail(usage)
		}
		fail(http.ListenAndServe(first, http.FileServer(http.Dir(arguments[2]))))
	case "refresh":
		refresh(first)
	case "get":
		get(first, time.Duration(optional(arguments, 10))*time.Second)
	case "exit":
		time.Sleep(time.Duration(optional(arguments, 0)) * time.Second)
		os.Exit(number(first))
	default:
		fail(usage)
	}
}

func hold(mebibytes int) {
	memory := make([]byte, mebibytes<<20)
	for ; ; time.Sleep(time.Minute) {
		for i := 0; i < len(memory); i += 4096 {
			memory[i]++
		}
		fmt.Printf("holding %d MiB\n", mebibytes)
	}
}

func refresh(path string) {
	for n := 1; ; n++ {
		draft := path + ".new"
		if err := os.WriteFile(draft, []byte(fmt.Sprintf("content %d\n", n)), 0o644); err != nil {
			fail(err)
		}
		if err := os.Rename(draft, path); err != nil {
			fail(err)
		}
		time.Sleep(time.Second)
	}
}

func get(url string, patience time.Duration) {
	client := &http.Client{Timeout: 2 * time.Second}
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		answer, err := client.Get(url)
		if err != nil {
			last = err
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err == nil && answer.StatusCode == http.StatusOK {
			fmt.Print(string(body))
			return
		}
		last = fmt.Errorf("%s: %s (%v)", url, answer.Status, err)
	}
	fail(last)
}

func optional(arguments []string, otherwise int) int {
	if len(arguments) < 3 {
		return otherwise
	}
	return number(arguments[2])
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		fail(err)
	}
	return n
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
