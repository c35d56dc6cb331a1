// C++'s ways to read files, printed: the same for plain and sealed ones. Usage: streams FOLDER
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace fs = std::filesystem;

static size_t hash(const std::string &text) {
    size_t value = 5381;
    for (unsigned char c : text)
        value = value * 33 ^ c;
    return value;
}

int main(int, char **arguments) {
    const fs::path root = arguments[1];
    for (const char *name : {"text", "bin/small.bin", "bin/large.bin", "nothing", "no"}) {
        std::ifstream file(root / name, std::ios::binary);
        std::string line, rest;
        std::cout << name << ' ' << file.is_open() << ' ';
        std::getline(file, line);
        std::cout << hash(line) << ' ' << file.tellg() << ' ';
        file.clear();
        file.seekg(-3, std::ios::end);
        std::cout << file.tellg() << ' ' << file.get() << ' ';
        file.clear();
        file.seekg(0);
        rest.assign(std::istreambuf_iterator<char>(file), {});
        std::cout << rest.size() << ' ' << hash(rest) << ' ';
        std::vector<char> buffer(100000);
        file.clear();
        file.seekg(2);
        file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        std::cout << file.gcount() << ' ' << hash(std::string(buffer.data(), static_cast<size_t>(file.gcount()))) << '\n';
    }
    std::ofstream writing(root / "bin/small.bin", std::ios::in | std::ios::out);
    for (const auto &entry : fs::directory_iterator(root))
        std::cout << entry.path().filename() << ' ' << entry.is_symlink() << '\n';
    size_t files = 0, bytes = 0;
    for (const auto &entry : fs::recursive_directory_iterator(root, fs::directory_options::skip_permission_denied)) {
        if (!entry.is_symlink() && entry.is_regular_file()) {
            files++;
            bytes += entry.file_size();
        }
    }
    std::error_code error;
    std::cout << files << ' ' << bytes << ' ' << fs::exists(root / "no") << fs::exists(root / "dangling")
              << fs::is_directory(root / "up") << ' ' << fs::read_symlink(root / "link") << ' '
              << fs::relative(fs::canonical(root / "link"), root) << ' ' << fs::file_size(root / "bin", error) << error.value()
              << ' ' << fs::is_empty(root / "empty") << fs::is_empty(root / "nothing") << ' '
              << fs::equivalent(root / "link", root / "bin/small.bin") << '\n';
    const fs::path copy = fs::temp_directory_path() / ("sealfs-copy-" + std::string(arguments[2]));
    fs::copy_file(root / "bin/large.bin", copy, fs::copy_options::overwrite_existing);
    std::ifstream copied(copy, std::ios::binary);
    std::cout << hash(std::string(std::istreambuf_iterator<char>(copied), {})) << '\n';
    fs::remove(copy);
}
