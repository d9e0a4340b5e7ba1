// The message of a file, read again on SIGHUP.
package main

import ("fmt"; "net"; "net/http"; "os"; "os/signal"; "sync/atomic"; "syscall")

func main() {
	var message atomic.Value
	load := func() {
		if bytes, err := os.ReadFile(os.Args[1]); err == nil { message.Store(bytes) }
	}
	load()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() { for range hup { load() } }()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write(message.Load().([]byte)) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { panic(err) }
	fmt.Printf("http://%s/\n", listener.Addr())
	panic(http.Serve(listener, nil))
}
