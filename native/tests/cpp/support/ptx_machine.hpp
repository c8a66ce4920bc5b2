// Runs a PTX kernel on this machine: the few instructions that our kernels are made of, one thread at a time.
//
// Lanes of a warp meet at shfl.sync, threads of a block at bar.sync, as on a device; a thread that never comes is an
// error, and so is an unknown instruction, an unknown name, or a read or write outside of what the test allows.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace dormouse::ptx {

using Word = std::uint64_t;

struct Instruction {
    std::string text, guard, name;
    bool unless = false;  // @!guard
    std::vector<std::string> operands;
    bool unpacks = false;  // the first operand is a pair: mov.b64 {low, high}, x
};

class Machine {
   public:
    explicit Machine(const std::string& text) { parse(text); }

    // Memory that the kernel may read with ld.global, and how often it read each vector of 16 bytes.
    void readable(const void* data, std::size_t bytes) {
        begin_ = reinterpret_cast<Word>(data);
        reads_.assign(bytes / 16, 0);
    }
    const std::vector<unsigned>& reads() const { return reads_; }
    // The same for st.global.
    void writable(void* data, std::size_t bytes) {
        target_ = reinterpret_cast<Word>(data);
        writes_.assign(bytes / 16, 0);
    }
    const std::vector<unsigned>& writes() const { return writes_; }
    // Additions to memory so far.
    unsigned additions() const { return additions_; }

    void launch(unsigned blocks, unsigned threads, std::map<std::string, Word> parameters) {
        parameters_ = std::move(parameters);
        blocks_ = blocks;
        threads_ = threads;
        for (block_ = 0; block_ < blocks; ++block_) run_block();
    }

   private:
    struct Thread {
        Word id = 0;
        std::size_t next = 0;
        std::map<std::string, Word> registers;
        enum { running, at_shuffle, at_barrier, ended } state = running;
    };

    void parse(const std::string& text) {
        std::istringstream lines(text.substr(text.find('{') + 1));
        for (std::string line; std::getline(lines, line);) {
            line.erase(0, line.find_first_not_of(' '));
            if (line.empty() || line[0] == '.' || line == "}") continue;
            if (line.back() == ':') {
                labels_[line.substr(0, line.size() - 1)] = code_.size();
                continue;
            }
            code_.push_back(instruction(line));
        }
    }

    static Instruction instruction(const std::string& line) {
        Instruction made;
        made.text = line;
        std::istringstream words(line.substr(0, line.find(';')));
        std::string word;
        words >> word;
        if (word[0] == '@') {
            made.unless = word[1] == '!';
            made.guard = word.substr(made.unless ? 2 : 1);
            words >> word;
        }
        made.name = word;
        std::string rest;
        std::getline(words, rest);
        made.unpacks = rest.find('{') == 1;
        for (char& character : rest)
            if (std::strchr("{}[],", character) != nullptr) character = ' ';
        std::istringstream operands(rest);
        while (operands >> word) made.operands.push_back(word);
        return made;
    }

    void run_block() {
        shared_.assign(8, 0xDEAD);
        std::vector<Thread> all(threads_);
        for (std::size_t i = 0; i < all.size(); ++i) all[i].id = i;
        for (;;) {
            bool moved = false;
            std::size_t ended = 0, waiting = 0;
            for (Thread& thread : all) {
                moved |= thread.state == Thread::running;
                while (thread.state == Thread::running) step(thread);
                ended += thread.state == Thread::ended;
                waiting += thread.state == Thread::at_barrier;
            }
            if (ended == all.size()) return;
            for (std::size_t warp = 0; warp + 32 <= all.size(); warp += 32) moved |= shuffle(&all[warp]);
            if (waiting == all.size()) {
                for (Thread& thread : all) resume(thread);
                moved = true;
            }
            if (!moved) throw std::runtime_error("threads wait for others that never come");
        }
    }

    static void resume(Thread& thread) {
        thread.state = Thread::running;
        ++thread.next;
    }

    // shfl.sync.down.b32 to, from, distance, 31, mask: when all lanes have come to the same one.
    bool shuffle(Thread* lanes) {
        for (int i = 0; i < 32; ++i)
            if (lanes[i].state != Thread::at_shuffle || lanes[i].next != lanes[0].next) return false;
        const std::vector<std::string>& operands = code_[lanes[0].next].operands;
        const std::size_t distance = std::stoul(operands[2]);
        std::vector<Word> from(32);
        for (std::size_t i = 0; i < 32; ++i) from[i] = value(lanes[i], operands[1]);
        for (std::size_t i = 0; i < 32; ++i) {
            lanes[i].registers[operands[0]] = from[i + distance < 32 ? i + distance : i];
            resume(lanes[i]);
        }
        return true;
    }

    Word value(const Thread& thread, const std::string& name) const {
        if (name == "%tid.x") return thread.id;
        if (name == "%ntid.x") return threads_;
        if (name == "%ctaid.x") return block_;
        if (name == "%nctaid.x") return blocks_;
        if (name.starts_with("partial")) return name.size() > 8 ? std::stoull(name.substr(8)) : 0;
        if (name[0] >= '0' && name[0] <= '9') return std::stoull(name, nullptr, 0);
        const auto found = thread.registers.find(name);
        if (found == thread.registers.end()) throw std::runtime_error("read before it was written: " + name);
        return found->second;
    }

    // Counts one use of the vector at `address`.
    static Word* use(Word address, Word begin, std::vector<unsigned>& uses) {
        const Word offset = address - begin;
        if (offset % 16 != 0 || offset / 16 >= uses.size()) throw std::runtime_error("outside of the range");
        ++uses[offset / 16];
        return reinterpret_cast<Word*>(address);
    }

    void step(Thread& thread) {
        const Instruction& at = code_.at(thread.next);
        const auto in = [&](std::size_t i) { return value(thread, at.operands.at(i)); };
        const auto put = [&](std::size_t i, Word word) { thread.registers[at.operands.at(i)] = word; };
        constexpr Word half = 0xffffffff;
        const std::string& name = at.name;
        if (!at.guard.empty() && (value(thread, at.guard) == 0) != at.unless) {
        } else if (name == "bra") {
            thread.next = labels_.at(at.operands.at(0));
            return;
        } else if (name == "ret") {
            thread.state = Thread::ended;
            return;
        } else if (name == "shfl.sync.down.b32") {
            thread.state = Thread::at_shuffle;
            return;
        } else if (name == "bar.sync") {
            thread.state = Thread::at_barrier;
            return;
        } else if (name == "ld.param.u64") {
            put(0, parameters_.at(at.operands.at(1)));
        } else if (name == "mov.b64" && at.unpacks) {
            const Word whole = in(2);
            put(0, whole & half);
            put(1, whole >> 32);
        } else if (name == "mov.b64") {
            put(0, in(1) | in(2) << 32);
        } else if (name == "mov.u32" || name == "mov.u64" || name == "cvt.u64.u32" || name == "cvta.to.global.u64") {
            put(0, in(1));
        } else if (name == "add.u64") {
            put(0, in(1) + in(2));
        } else if (name == "add.u32") {
            put(0, (in(1) + in(2)) & half);
        } else if (name == "sub.u64") {
            put(0, in(1) - in(2));
        } else if (name == "mul.lo.u64" || name == "mul.wide.u32") {
            put(0, in(1) * in(2));
        } else if (name == "shl.b64") {
            put(0, in(1) << in(2));
        } else if (name == "shl.b32") {
            put(0, in(1) << in(2) & half);
        } else if (name == "shr.u64" || name == "shr.u32") {
            put(0, in(1) >> in(2));
        } else if (name == "xor.b32") {
            put(0, in(1) ^ in(2));
        } else if (name == "and.b32") {
            put(0, in(1) & in(2));
        } else if (name == "setp.ge.u64") {
            put(0, in(1) >= in(2));
        } else if (name == "setp.lt.u64") {
            put(0, in(1) < in(2));
        } else if (name == "setp.ne.u32") {
            put(0, in(1) != in(2));
        } else if (name == "ld.global.cs.nc.v2.u64" || name == "ld.global.cs.v2.u64") {
            const Word* words = use(in(2), begin_, reads_);
            put(0, words[0]);
            put(1, words[1]);
        } else if (name == "st.global.cs.v2.u64") {
            Word* words = use(in(0), target_, writes_);
            words[0] = in(1);
            words[1] = in(2);
        } else if (name == "ld.shared.v2.u64") {
            const Word offset = in(2);
            put(0, shared_.at(offset / 8));
            put(1, shared_.at(offset / 8 + 1));
        } else if (name == "st.shared.u64") {
            shared_.at(in(0) / 8) = in(1);
        } else if (name == "red.global.add.u64") {
            *reinterpret_cast<Word*>(in(0)) += in(1);
            ++additions_;
        } else {
            throw std::runtime_error("this machine does not know: " + at.text);
        }
        ++thread.next;
    }

    std::vector<Instruction> code_;
    std::map<std::string, std::size_t> labels_;
    std::map<std::string, Word> parameters_;
    std::vector<Word> shared_;
    std::vector<unsigned> reads_, writes_;
    Word begin_ = 0, target_ = 0;
    unsigned blocks_ = 0, threads_ = 0, block_ = 0, additions_ = 0;
};

}  // namespace dormouse::ptx
